"""File systems: what goes in comes out, at every size; compact, the same each time, and of the whole region."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from littlefs import LittleFS

from farkernel.device_images import file_system
from farkernel.device_images.errors import DoesNotFit, ToolMissing
from farkernel.device_images.file_system import BadFileSystem, Geometry, _Flash, make, read_files
from farkernel.device_images.folder import BoardFile
from tests.device_images.samples import noise

BLOCKS = 0x2FB  # an ESP8266 with 4 MiB


def mounted(data: bytes, blocks: int, geometry: Geometry | None = None) -> LittleFS:
    """As MicroPython mounts it: with its own parameters, and no formatting."""
    options = (geometry or Geometry()).options(blocks)
    found = LittleFS(context=_Flash(blocks, data), mount=False, **options)  # type: ignore[arg-type]
    found.mount()
    return found


@pytest.mark.parametrize("geometry", [Geometry(), Geometry(program_size=256)])
def test_files_and_folders(geometry: Geometry) -> None:
    files = [
        BoardFile("main.py", b"print(1)\n"),
        BoardFile("lib/large.mpy", noise(50_000)),
        BoardFile("empty", b""),
        BoardFile("lib/ümlaut.txt", b"x" * 300),
    ]
    made = make(files, ["lib", "lib/none"], BLOCKS, geometry)
    found = mounted(made.data, BLOCKS, geometry)
    assert found.fs_stat().block_count == BLOCKS
    assert found.fs_stat().disk_version == 0x00020000
    assert sorted(found.listdir("/")) == ["empty", "lib", "main.py"]
    assert sorted(found.listdir("/lib")) == ["large.mpy", "none", "ümlaut.txt"]
    assert read_files(made.data, BLOCKS, geometry) == {file.path: file.data for file in files}


def test_it_can_be_written_to_until_it_is_full() -> None:
    made = make([BoardFile("main.py", b"print(1)\n" * 100)], [], 64)
    found = mounted(made.data, 64)
    with found.open("/log", "wb") as file:
        file.write(noise(200_000))
    with found.open("/log", "rb") as file:
        assert file.read() == noise(200_000)
    with found.open("/main.py", "rb") as file:
        assert file.read() == b"print(1)\n" * 100


def test_it_is_compact_and_the_same_each_time() -> None:
    files = [BoardFile(f"f{number}", noise(3000, number)) for number in range(20)]
    made = make(files, [], BLOCKS)
    assert made.used_blocks * 4096 == len(made.data)
    assert made.used_blocks < 30
    assert make(files, [], BLOCKS) == made


def test_all_of_it_can_be_used() -> None:
    made = make([BoardFile("large", noise((BLOCKS - 12) * 4096))], [], BLOCKS)
    assert made.used_blocks <= BLOCKS


@pytest.mark.parametrize("size", [BLOCKS * 4096 - 1000, BLOCKS * 4096 + 1])
def test_too_much(size: int) -> None:
    files = [BoardFile("a.txt", b"x"), BoardFile("photos/large.png", noise(size)), BoardFile("b.txt", b"xx")]
    with pytest.raises(DoesNotFit) as error:
        make(files, ["photos"], BLOCKS)
    assert error.value.what.startswith(
        f"3 files of {(size + 3) / 1024:.0f} KiB in all do not fit into the board's 3052 KiB"
    )
    assert error.value.what.endswith(
        f"the largest: photos/large.png ({size / 1024:.0f} KiB), b.txt (0.0 KiB), a.txt (0.0 KiB)"
    )
    assert "--flash-size" in error.value.advice


def test_many_small_files_that_are_too_many() -> None:
    files = [BoardFile(f"file{number:04}", b"x" * 100) for number in range(2000)]
    with pytest.raises(DoesNotFit):
        make(files, [], 10)


names = st.text("abcdefghijklmnopqrstuvwxyz.-_äß", min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=30)
@given(st.dictionaries(names, st.integers(0, 20_000), max_size=12), st.integers(60, 200))
def test_round_trip(sizes: dict[str, int], blocks: int) -> None:
    files = [BoardFile(name, noise(size, size)) for name, size in sizes.items()]
    made = make(files, [], blocks)
    assert read_files(made.data, blocks) == {file.path: file.data for file in files}


@given(st.binary(max_size=3 * 4096))
def test_any_bytes_are_a_file_system_or_an_error(data: bytes) -> None:
    try:
        read_files(data, 16)
    except BadFileSystem:
        return


def test_without_littlefs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "littlefs", None)
    with pytest.raises(ToolMissing, match="littlefs-python is not installed"):
        file_system.make([], [], 10)
