"""Leases of devices: never two holders, for all users of a machine, whatever is killed."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.archive import PACKAGE, build_archive
from farkernel.launcher.agent.leases import Leases, NoLeases
from tests.sites.other_users import PYTHON, UIDS, open_directory

ABOUT = {"kernel": "k1"}
GPU = "GPU-00000000-aaaa-bbbb-cccc-0123456789ab"


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    found = Leases(str(tmp_path / "leases"))
    os.close(found.open())
    return found


def test_one_holder_at_a_time(leases: Leases) -> None:
    first = leases.take(GPU, ABOUT)
    assert first is not None
    assert leases.take(GPU, ABOUT) is None
    other = leases.take("MIG-1", ABOUT)
    assert other is not None
    os.close(first)
    again = leases.take(GPU, ABOUT)
    assert again is not None
    os.close(again)
    os.close(other)


def test_who_holds_it_is_for_all_to_read(leases: Leases) -> None:
    before = os.umask(0o077)
    try:
        descriptor = leases.take(GPU, ABOUT)
    finally:
        os.umask(before)
    assert descriptor is not None
    holder = leases.holder(GPU)
    assert holder is not None
    assert (holder["kernel"], holder["user"], holder["mine"]) == ("k1", "root", True)
    for path in Path(leases.directory).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    os.close(descriptor)


def test_what_another_wrote_in_our_name_counts_for_nothing(leases: Leases) -> None:
    descriptor = leases.take(GPU, ABOUT)
    assert descriptor is not None
    forged = Path(leases.directory, f"{GPU}.12345")  # it belongs to root
    forged.write_text(json.dumps({"kernel": "forged"}))
    Path(leases.directory, f"{GPU}.77").symlink_to("/etc/passwd")
    assert (leases.holder(GPU) or {})["kernel"] == "k1"
    os.close(descriptor)
    assert leases.holder(GPU) is None


def test_nonsense_about_a_holder(leases: Leases) -> None:
    descriptor = leases.take(GPU, ABOUT)
    assert descriptor is not None
    Path(leases.directory, f"{GPU}.{os.geteuid()}").write_bytes(b"\xff{")
    assert leases.holder(GPU) == {"user": "root", "mine": True}  # the lock itself tells that much
    os.close(descriptor)


def test_the_directory_is_open_to_all_and_sticky(leases: Leases) -> None:
    assert stat.S_IMODE(os.stat(leases.directory).st_mode) == 0o1777


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(mode=0o700), "is closed to others"),
        (lambda path: path.symlink_to("/tmp"), "cannot be used (Not a directory)"),
        (lambda path: path.write_text(""), "cannot be used (Not a directory)"),
    ],
)
def test_a_directory_that_is_none_of_ours(tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "leases"
    make(path)  # type: ignore[operator]
    with pytest.raises(NoLeases) as raised:
        Leases(str(path)).open()
    assert said in raised.value.what
    assert "mode 1777" in raised.value.advice


def test_the_document_says_who_has_what(leases: Leases) -> None:
    descriptor = leases.take(GPU, ABOUT)
    assert descriptor is not None
    machine: dict[str, Any] = {"gpus": [{"uuid": GPU}, {"uuid": "GPU-1"}, {"uuid": None}, {"uuid": "../x"}]}
    leases.add_to(machine)
    first, *others = (gpu["lease"] for gpu in machine["gpus"])
    assert (first["user"], first["mine"], first["kernel"]) == ("root", True, "k1")
    assert others == [None, None, None]
    leases.add_to({})
    os.close(descriptor)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 200, "GPU\n"])
def test_a_device_s_name_is_no_path(leases: Leases, name: str) -> None:
    with pytest.raises(NoLeases, match="has no place for a device named"):
        leases.take(name, ABOUT)


def test_what_is_no_plain_file_is_not_locked(leases: Leases) -> None:
    os.mkfifo(Path(leases.directory, GPU))
    with pytest.raises(NoLeases):
        leases.take(GPU, ABOUT)
    Path(leases.directory, "MIG-1").symlink_to("/etc/passwd")
    with pytest.raises(NoLeases):
        leases.take("MIG-1", ABOUT)


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(leases.directory, GPU)
    first = leases.take(GPU, ABOUT)
    assert first is not None
    opened = Leases._file
    removed: list[str] = []

    def remove_after_opening(self: Leases, name: str) -> int:
        descriptor = opened(self, name)
        if not removed:
            removed.append(name)
            os.close(first)
            path.unlink()
        return descriptor

    monkeypatch.setattr(Leases, "_file", remove_after_opening)
    second = leases.take(GPU, ABOUT)
    assert second is not None
    assert os.fstat(second).st_ino == path.stat().st_ino
    assert leases.take(GPU, ABOUT) is None
    os.close(second)


def test_what_tidies_up_keeps_out_as_long_as_something_is_leased(leases: Leases) -> None:
    """systemd-tmpfiles(8) skips a directory on which it gets no exclusive lock."""
    held = leases.open()
    cleaner = os.open(leases.directory, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(held)
    fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(cleaner)


# -- two users ---------------------------------------------------------------------------------------------

RACER = f"""
import os, sys
sys.path.insert(0, sys.argv[1])
from {PACKAGE} import devices
from {PACKAGE}.leases import Leases
leases = Leases(sys.argv[2])
machine = {{"choice": {{"free": [{{"uuid": {GPU!r}, "label": "GPU 0"}}], "reasons": []}}, "problems": []}}
held = None
for line in sys.stdin:
    if line == "go\\n":
        try:
            held = devices.lease(machine, devices.Wanted(1, 0), leases, {{"kernel": "of-" + str(os.getuid())}})
            print("got", flush=True)
        except devices.NoGpu as error:
            print("no " + error.what, flush=True)
    elif held is not None:
        held.close()
        held = None
"""


class Racer:
    """Another user with the agent's own code."""

    def __init__(self, uid: int, place: Path) -> None:
        self.uid = uid
        self.process = subprocess.Popen(
            [PYTHON, "-I", "-c", RACER, str(place / "agent.zip"), str(place / "leases")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
        )

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory as /tmp is."""
    with open_directory(0o1777) as place:
        (place / "agent.zip").write_bytes(build_archive().content)
        yield place


def test_two_users_race_for_the_last_gpu_200_times(place: Path) -> None:
    os.close(Leases(str(place / "leases")).open())
    racers = [Racer(UIDS[0], place), Racer(UIDS[1], place)]
    won, named = {UIDS[0]: 0, UIDS[1]: 0}, 0
    try:
        for turn in range(200):
            order = racers if turn % 2 else racers[::-1]
            for racer in order:
                racer.say("go")
            answers = {racer.uid: racer.hear() for racer in order}
            winners = [uid for uid, answer in answers.items() if answer == "got"]
            assert len(winners) == 1, answers
            (loser,) = answers.keys() - set(winners)
            assert "GPU 0: leased by " in answers[loser], answers
            named += f"leased by user {winners[0]}" in answers[loser]
            won[winners[0]] += 1
            for racer in racers:
                racer.say("drop")
        assert sum(won.values()) == 200
        assert named > 190  # the list of locks, by which the holder is known, is read in pieces
    finally:
        for racer in racers:
            racer.end()


def test_who_is_killed_holds_nothing_any_more(place: Path) -> None:
    """The directory was made by the one, and is used by the other after everything of the first is gone."""
    first, second = Racer(UIDS[0], place), Racer(UIDS[1], place)
    try:
        first.say("go")
        assert first.hear() == "got"
        second.say("go")
        assert second.hear().startswith(f"no 1 GPU cannot be had there: GPU 0: leased by user {UIDS[0]}")
        first.end()
        second.say("go")
        assert second.hear() == "got"
    finally:
        first.end()
        second.end()
