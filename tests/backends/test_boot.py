"""The boot script under a real shell, and the reader of the far end's first words."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.boot import Archive, Boot, BootError, Greeting, NoPython

ARCHIVE = Archive(b"zip", "0" * 64, 3)
NONCE = "ab" * 16


def in_loop(check: Callable[[Greeting], None]) -> None:
    async def run() -> None:
        check(Greeting(NONCE, ARCHIVE, ("python3", "python")))

    asyncio.run(run())


@pytest.mark.parametrize(
    "noise", [b"", b"Welcome!\nlast login: yesterday\n", b"no newline before it ", b"\xff\x00" * 500]
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_noise_is_skipped_and_what_follows_is_the_links(noise: bytes, step: int) -> None:
    def check(greeting: Greeting) -> None:
        data = noise + f"{NONCE} link {{}}\n".encode() + b"\0first bytes"
        got = b""
        for start in range(0, len(data), step):
            if greeting.linked:
                got += data[start : start + step]
            else:
                rest, answer = greeting.feed(data[start : start + step])
                assert answer == b""
                got += rest
        assert greeting.linked
        assert got == b"\0first bytes"

    in_loop(check)


def test_the_archive_is_sent_when_it_is_asked_for() -> None:
    def check(greeting: Greeting) -> None:
        assert greeting.feed(f'{NONCE} need {{"bytes": 3}}\n'.encode()) == (b"", b"zip")
        assert greeting.feed(f"{NONCE} link {{}}\nx".encode()) == (b"x", b"")

    in_loop(check)


def test_an_error_keeps_the_far_ends_words() -> None:
    def check(greeting: Greeting) -> None:
        with pytest.raises(BootError, match=r"no space left. Free some") as caught:
            greeting.feed(
                f'{NONCE} error {{"what": "no space left", "advice": "Free some", "final": true}}\n'.encode()
            )
        assert caught.value.final

    in_loop(check)


def test_endless_noise_is_refused() -> None:
    def check(greeting: Greeting) -> None:
        for _ in range(64):
            greeting.feed(b"y" * 1024)
        with pytest.raises(BootError, match="more than 64 KiB"):
            greeting.feed(b"y")

    in_loop(check)


def test_a_stream_that_ends_early_says_what_was_heard() -> None:
    def check(greeting: Greeting) -> None:
        greeting.feed(b"This account is currently not available.\n")
        assert "This account is currently not available" in greeting.ended("").what
        assert "Permission denied" in greeting.ended("Permission denied").what

    in_loop(check)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_nothing_but_boot_errors_comes_of_any_bytes(chunks: list[bytes]) -> None:
    def check(greeting: Greeting) -> None:
        for chunk in chunks:
            try:
                greeting.feed(chunk)
            except BootError:
                return

    in_loop(check)


def run_script(shell: str, boot: Boot) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([shell, "-s"], input=boot.script, capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_pythons_are_tried_in_order_and_old_ones_passed_over(tmp_path: Path, shell: str) -> None:
    for name, status in (("old1", 99), ("old2", 99), ("good", 0)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/tried\nexit {status}\n")
        program.chmod(0o755)
    paths = [str(tmp_path / name) for name in ("missing", "old1", "old2", "good", "never")]
    assert run_script(shell, Boot(ARCHIVE, "host", b"hello", paths)).returncode == 0
    assert (tmp_path / "tried").read_text().split() == ["old1", "old2", "good"]


def test_no_python_is_said_with_what_was_tried(tmp_path: Path) -> None:
    old = tmp_path / "it's old"
    old.write_text("#!/bin/sh\nexit 99\n")
    old.chmod(0o755)
    boot = Boot(ARCHIVE, "host", b"", ["/nowhere/python3", str(old)])
    done = run_script("/bin/sh", boot)
    assert done.returncode == 1

    async def read() -> None:
        with pytest.raises(NoPython) as caught:
            boot.greeting().feed(done.stdout)
        assert "of /nowhere/python3, " in caught.value.what
        assert f"only too old or incomplete ones ({old})" in caught.value.what
        assert "agent_python" in caught.value.advice

    asyncio.run(read())


def test_nothing_of_ours_is_seen_in_the_process_list(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ntr '\\0' ' ' < /proc/$$/cmdline\n")
    program.chmod(0o755)
    boot = Boot(ARCHIVE, "host", b"a-secret-hello", [str(program)])
    seen = run_script("/bin/sh", boot).stdout.decode()
    assert "FARKERNEL_LOADER" in seen
    assert "YS1zZWNyZXQtaGVsbG8" not in seen
    assert os.environ.get("FARKERNEL_LOADER") is None


def test_files_in_the_home_do_not_stand_in_for_pythons_own_modules(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("os", "socket", "hashlib", "struct", "json", "sitecustomize"):
        (home / f"{name}.py").write_text("raise SystemExit('that is not mine')\n")
    monkeypatch.chdir(home)
    boot = Boot(ARCHIVE, "host", b"hello", [sys.executable])
    done = run_script("/bin/sh", boot)
    assert b' need {"bytes": 3}\n' in done.stdout
    assert b'"kind": "cut"' in done.stdout  # the script is all that it was sent
    assert done.stderr == b""


def test_the_users_own_umask_travels_on_and_ours_is_private(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho $FARKERNEL_UMASK $(umask)\n")
    program.chmod(0o755)
    boot = Boot(ARCHIVE, "host", b"", [str(program)])
    script = b"umask 027\n" + boot.script
    done = subprocess.run(["/bin/sh", "-s"], input=script, capture_output=True, timeout=20, check=True)
    assert done.stdout.split() == [b"0027", b"0077"]
