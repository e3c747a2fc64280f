"""`farkernel board flash serial://host/…`: the real esptool beside a fake boot ROM, at the far side of a real sshd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farkernel.launcher.agent import holds

from ..device_images.samples import esp8266_firmware
from ..sites.engine import Engine, wait_until
from ..sites.esp8266_rom import ESP32_MAGIC, Esp8266Rom, Faults, on_pty
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]

FIRMWARE = esp8266_firmware(0x20000)


@pytest.fixture
def pi(engine: Engine, home: Path) -> Iterator[Sshd]:
    temporary = home.parent / "tmp"
    temporary.mkdir()
    host = Sshd(home.parent / "sshd")
    host.environment["TMPDIR"] = str(temporary)
    with host:
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 15)
        # Nothing of ours stays there, the image neither.
        wait_until(lambda: not list(temporary.iterdir()), "the images to be removed", 30)


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "fw.bin"
    path.write_bytes(FIRMWARE)
    return path


def farkernel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def target(pi: Sshd, port: str, *settings: str) -> str:
    config = pi.write_client_config(f"HostKeyAlias [127.0.0.1]:{pi.port}")
    address = f"serial://{pi.user}@127.0.0.1:{pi.port}{port}"
    added = farkernel("add", "far-board", address, "--set", f"ssh_config={config}", *settings)
    assert added.returncode == 0, added.stderr
    return "far-board"


def test_written_compared_and_started_there(pi: Sshd, file: Path) -> None:
    rom = Esp8266Rom()
    with on_pty(rom) as port:
        name = target(pi, port, "--python", sys.executable)
        done = farkernel("board", "flash", name, str(file))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(
            f"128 KiB are on the esp8266 at serial://{pi.user}@127.0.0.1:{pi.port}{port} (5c:"
        )
        said = done.stderr.splitlines()
        assert said[:2] == ["sending the image to 127.0.0.1", "looking for the board"]
        assert "writing 100 %" in said
        assert said[-1] == "comparing what was written"
        assert rom.flash[4 : len(FIRMWARE)] == FIRMWARE[4:]
        again = farkernel("board", "flash", name, str(file), "--json", "--baud", "115200")
        assert json.loads(again.stdout)["verified"] is True
        assert pi.logins() == 1


def test_what_goes_wrong_there_is_said_here(pi: Sshd, file: Path) -> None:
    rom = Esp8266Rom(faults=Faults(magic=ESP32_MAGIC))
    with on_pty(rom) as port:
        name = target(pi, port, "--python", sys.executable)
        failed = farkernel("board", "flash", name, str(file))
        assert failed.returncode == 1
        assert (
            f"the board at {port} on 127.0.0.1 is esp32, and the file is for esp8266. Nothing was"
            in failed.stderr
        )
        assert rom.blocks == 0
        # Somebody at that machine has it.
        with subprocess.Popen(["sleep", "60"]) as other:
            try:
                Path(holds.lock_file(port)).write_text(f"{other.pid:10d}\n")
                failed = farkernel("board", "flash", name, str(file))
            finally:
                other.kill()
        assert f"{port} there is in use by sleep 60 (process {other.pid} of " in failed.stderr
        Path(holds.lock_file(port)).unlink()
    failed = farkernel("board", "flash", name, str(file))
    assert f"no board at {port} there. Plug it in" in failed.stderr


def test_a_machine_without_esptool(pi: Sshd, file: Path, home: Path) -> None:
    """It says so, with the command that helps there; the Python that the target names is asked first."""
    bare = home / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with on_pty(Esp8266Rom()) as port:
        name = target(pi, port)
        with_path(pi, bare)
        failed = farkernel("board", "flash", name, str(file))
        assert failed.returncode == 1
        assert "there is no esptool on 127.0.0.1. Install it there: " in failed.stderr
        assert (
            " -m pip install esptool. If another Python has it, name that as the target's `python`"
            in failed.stderr
        )


def with_path(pi: Sshd, bare: Path) -> None:
    """Sessions find this Python, which has no packages, and no programs of others."""
    (bare / "usr").mkdir()
    for program in (
        "sh",
        "cat",
        "mkdir",
        "rm",
        "uname",
        "id",
        "env",
        "command",
        "dd",
        "head",
        "od",
        "tr",
        "sed",
    ):
        for place in ("/usr/bin", "/bin"):
            if os.path.exists(f"{place}/{program}"):
                (bare / "usr" / program).symlink_to(f"{place}/{program}")
                break
    pi.environment["PATH"] = f"{bare}/bin:{bare}/usr"
    pi.restart()


def test_interrupted_in_the_middle(pi: Sshd, file: Path) -> None:
    """esptool does not outlive the command: the port is free for the next one."""
    rom = Esp8266Rom()
    with on_pty(rom) as port:
        name = target(pi, port, "--python", sys.executable)
        command = [
            sys.executable,
            "-P",
            "-m",
            "farkernel",
            "board",
            "flash",
            name,
            str(file),
            "--baud",
            "9600",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = threading.Event()
            heard: list[str] = []

            def listen() -> None:
                assert process.stderr is not None
                for line in process.stderr:
                    heard.append(line)
                    if line.startswith("writing to "):
                        said.set()

            thread = threading.Thread(target=listen)
            thread.start()
            assert said.wait(60), heard
            process.send_signal(2)
            assert process.wait(30) != 0
            thread.join()
        assert "incomplete" in "".join(heard)
        wait_until(lambda: not esptools(port), "esptool to end there", 20)
        rom.restart()
        done = farkernel("board", "flash", name, str(file))
        assert done.returncode == 0, done.stderr
        assert rom.flash[4 : len(FIRMWARE)] == FIRMWARE[4:]


def esptools(port: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "esptool" in (process.info["cmdline"] or []) and port in process.info["cmdline"]
    ]
