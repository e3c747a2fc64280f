"""The door of a job: who is let in, what comes through, and how it is found; the real program, the real relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.batch.command_route import CommandRoute
from farkernel.backends.batch.contract import WayIn
from farkernel.backends.batch.door_keys import DoorKeys, make_door_keys
from farkernel.backends.batch.door_route import DoorRoute
from farkernel.backends.batch.door_session import DoorRefused, Session
from farkernel.backends.batch.journal import Journal, Record
from farkernel.backends.contract import RouteError
from farkernel.backends.local import LocalRoute
from farkernel.launcher.agent.errands import doorway
from farkernel.launcher.agent.errands.doorway import context, ports

from ...sites.engine import wait_until
from .test_ways import Reader, User, converse, play

KEYS = make_door_keys()
PYTHONS = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
_PROGRAM = """
import sys
names = {"__name__": "doorway"}
exec(open(sys.argv[1]).read(), names)
names["main"](open(sys.argv[2]).read(), open(sys.argv[3]).read(), sys.argv[4])
"""


class Door:
    """Runs in a process of its own, as in a job; ``note`` is what it wrote down for others."""

    def __init__(self, directory: Path, keys: DoorKeys, python: str) -> None:
        directory.mkdir()
        self.note = directory / "note"
        for name, text in (("own", keys.job_key), ("other", keys.keeper_certificate)):
            (directory / name).write_text(text)
        files = [doorway.__file__, str(directory / "own"), str(directory / "other"), str(self.note)]
        self.process = subprocess.Popen([python, "-c", _PROGRAM, *files])
        wait_until(lambda: self.note.exists() and self.note.read_text(), "the door to listen")
        self.port = int(self.note.read_text())

    def children(self) -> str:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()


@contextmanager
def opened(directory: Path, keys: DoorKeys = KEYS, python: str = sys.executable) -> Iterator[Door]:
    door = Door(directory, keys, python)
    try:
        yield door
    finally:
        door.process.kill()
        door.process.wait()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with opened(tmp_path / "door") as door:
        yield door


def route(port: int | None = None, keys: DoorKeys = KEYS) -> DoorRoute:
    return DoorRoute(LocalRoute(User()), keys, "127.0.0.1", [port] if port else [], "Slurm job 7")


def through(route: DoorRoute, script: bytes) -> bytes:
    found: list[bytes] = []

    async def act() -> None:
        data, _ = await converse(route, script)
        found.append(data)

    play(act())
    return found[0]


def test_a_shell_behind_it(door: Door) -> None:
    assert through(route(door.port), b"printf 'a\\0b\\377'; exit\n") == b"a\0b\xff"
    wait_until(lambda: not door.children(), "the guest's process to end")


@pytest.mark.parametrize("python", [str(each) for each in PYTHONS], ids=lambda each: each.split("/")[-3])
def test_every_python_can_be_the_door(tmp_path: Path, python: str) -> None:
    with opened(tmp_path / "door", python=python) as door:
        assert through(route(door.port), b"echo $((6 * 7)); exit\n") == b"42\n"


def test_much_goes_both_ways(door: Door) -> None:
    script = b"head -c 3000000 /dev/zero | tr '\\0' x; exit\n"
    assert through(route(door.port), script) == b"x" * 3_000_000

    async def counted() -> None:
        reader = Reader()
        inside = CommandRoute(route(door.port), "", WayIn(("env",)), "job 7")
        stream = await inside.open(("sh", "-c", "head -c 5000000 | wc -c"), reader)
        stream.write([b"y" * 5_000_000])
        await reader.over
        assert reader.data.strip() == b"5000000"

    play(counted())


def test_it_is_found_without_a_note(door: Door) -> None:
    assert door.port in ports(KEYS.job_certificate)
    assert through(route(), b"echo found; exit\n") == b"found\n"


def test_another_program_has_its_port(tmp_path: Path) -> None:
    """The door takes the next one, and who looks for it does not stop at a stranger."""
    keys = make_door_keys()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("", ports(keys.job_certificate)[0]))
        stranger.listen()
        child = subprocess.Popen(
            [sys.executable, "-c", _STRANGER, str(stranger.fileno())], pass_fds=[stranger.fileno()]
        )
        try:
            with opened(tmp_path / "door", keys) as door:
                assert door.port == ports(keys.job_certificate)[1]
                assert through(route(keys=keys), b"echo found; exit\n") == b"found\n"
        finally:
            child.kill()
            child.wait()


_STRANGER = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    guest, _ = listener.accept()
    guest.sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
    guest.close()
"""


def test_another_jobs_keeper_is_not_let_in(door: Door) -> None:
    """Its certificate is good, and not the one that this door knows."""
    other = make_door_keys()
    keys = replace(KEYS, keeper=other.keeper)
    with pytest.raises(AssertionError):
        assert through(route(door.port, keys), b"echo in; exit\n") == b"in\n"
    assert through(route(door.port), b"echo in; exit\n") == b"in\n"


def test_another_jobs_door_is_refused(door: Door) -> None:
    other = make_door_keys()
    with pytest.raises(DoorRefused) as caught:
        through(route(door.port, replace(KEYS, job=other.job)), b"")
    assert caught.value.what.startswith("what listens for Slurm job 7 is not its door: ")
    assert "Another program may have its port" in caught.value.advice


def test_nobody_without_a_certificate_is_let_in(door: Door) -> None:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", door.port), 5) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        greet_and_read(plain, raw)
    with socket.create_connection(("127.0.0.1", door.port), 5) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(b"echo in >&2\n")
        assert b"in" not in raw.recv(1000)


def greet_and_read(plain: ssl.SSLContext, raw: socket.socket) -> None:
    """TLS 1.3 lets a client believe that it is in until it reads."""
    with plain.wrap_socket(raw) as stream:
        stream.sendall(b"echo in\n")
        if not stream.recv(100):
            raise ConnectionError("closed")


def test_nothing_listens() -> None:
    with pytest.raises(RouteError) as caught:
        through(route(1), b"")
    assert "the door of Slurm job 7 cannot be reached from the login host: " in caught.value.what
    assert "Connection refused" in caught.value.what
    assert "firewall" in caught.value.advice


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """The job's first process is killed: neither the door nor its guests stay."""
    starter = "import subprocess, sys, time; child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True); time.sleep(60)"
    for name, text in (("own", KEYS.job_key), ("other", KEYS.keeper_certificate)):
        (tmp_path / name).write_text(text)
    files = [doorway.__file__, *(str(tmp_path / name) for name in ("own", "other", "note"))]
    command = [sys.executable, "-c", starter, sys.executable, "-c", _PROGRAM, *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        door = int(parent.stdout.readline())
        wait_until(lambda: (tmp_path / "note").exists() and (tmp_path / "note").read_text(), "the door")
        parent.kill()
        wait_until(lambda: not Path(f"/proc/{door}").exists() or state(door) == "Z", "the door to end")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_guest_that_says_nothing_hinders_nobody(door: Door) -> None:
    with (
        socket.create_connection(("127.0.0.1", door.port)),
        socket.create_connection(("127.0.0.1", door.port)),
    ):
        assert through(route(door.port), b"echo in; exit\n") == b"in\n"


def test_a_guest_that_vanishes(door: Door) -> None:
    """Its shell ends with it."""

    async def act() -> None:
        reader = Collector()
        stream = await route(door.port).open(("/bin/sh", "-s"), reader)
        stream.write([b"echo in\n"])
        await reader.came
        stream.close()

    play(act())
    wait_until(lambda: not door.children(), "the guest's process to end")


class Collector:
    def __init__(self) -> None:
        self.came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.came.done():
            self.came.set_result(data)

    def writable(self) -> None:
        """Little is written."""

    def closed(self, said: str) -> None:
        """Nobody waits for it."""


# -- without any I/O -------------------------------------------------------------------------------


def pair() -> tuple[Session, ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """Ours, and the door's end of it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = context(ssl.PROTOCOL_TLS_SERVER, KEYS.job_key, KEYS.keeper_certificate).wrap_bio(
        incoming, outgoing, server_side=True
    )
    ours = Session(KEYS)
    ours.greet()
    for _ in range(3):
        incoming.write(ours.outgoing())
        try:
            there.do_handshake()
        except ssl.SSLWantReadError:
            pass
        ours.receive(outgoing.read())
    assert ours.greeted
    return ours, there, incoming, outgoing


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=5), st.integers(1, 5000))
def test_bytes_in_any_pieces(messages: list[bytes], piece: int) -> None:
    ours, there, _, outgoing = pair()
    for message in messages:
        there.write(message)
    wire = outgoing.read()
    found = b"".join(
        part for start in range(0, len(wire), piece) for part in ours.receive(wire[start : start + piece])
    )
    assert found == b"".join(messages)


@given(st.binary(min_size=1, max_size=300))
def test_noise_is_an_error_and_never_data(noise: bytes) -> None:
    session = Session(KEYS)
    session.greet()
    try:
        assert session.receive(noise) == []
    except ssl.SSLError:
        pass
    assert not session.greeted


def test_the_end_is_told() -> None:
    ours, there, incoming, _ = pair()
    ours.send([b"last words"])
    ours.bye()
    incoming.write(ours.outgoing())
    assert there.read(100) == b"last words"
    assert there.read(100) == b""


def test_an_end_without_goodbye_is_no_data() -> None:
    ours, there, _, outgoing = pair()
    there.write(b"half of it")
    wire = outgoing.read()
    assert ours.receive(wire[: len(wire) // 2]) == []
    assert not ours.over


# -- keys ------------------------------------------------------------------------------------------


def test_each_job_has_its_own() -> None:
    first, second = make_door_keys(), make_door_keys()
    assert len({first.keeper, first.job_key, second.keeper, second.job_key}) == 4
    assert "PRIVATE" not in repr(first)


def test_clocks_may_be_wrong() -> None:
    from cryptography import x509

    for text in (KEYS.job, KEYS.keeper_certificate):
        certificate = x509.load_pem_x509_certificate(text.encode())
        assert certificate.not_valid_before_utc.year == 2000
        assert certificate.not_valid_after_utc.year == 9999


def test_they_are_kept_where_only_the_user_can_read_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "jobs")
    record = Record("key", "slurm://h/p", "fk-x", door=asdict(KEYS))
    journal.save(record)
    (path,) = (tmp_path / "jobs").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(record)
    (found,) = journal.load()
    assert found.door_keys() == KEYS
    path.write_text(json.dumps({**json.loads(path.read_text()), "door": {"keeper": "half"}}))
    (found,) = journal.load()
    assert found.door_keys() is None


def test_the_way_that_worked_is_remembered(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.ways() == {}
    journal.remember_way("slurm://h/p", "door")
    journal.remember_way("slurm://h/q", "ssh")
    assert Journal(tmp_path).ways() == {"slurm://h/p": "door", "slurm://h/q": "ssh"}
    assert journal.load() == []
    (tmp_path / ".ways.json").write_text("[")
    assert journal.ways() == {}
