"""The guard by itself: it starts, holds, reaps, and writes down; and what is said of the ends that it sees."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.agent import guard, procinfo, reasons, records, spawn, specs
from farkernel.launcher.agent.guard import Held
from farkernel.launcher.agent.problems import BadRequest, NoKernelspec, NoProgram


def launch(directory: Path, *argv: str, **more: object) -> None:
    facts = {"argv": list(argv), "program": argv[0], "env": {"A": "b"}, "cwd": str(directory), **more}
    records.write(str(directory / spawn.LAUNCH), facts)


def test_descriptors_travel_with_their_names() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    with one, other:
        guard.send(one, {"hold": ["a"]}, [writing])
        os.close(writing)
        message, descriptors = guard.receive(other)
        assert message == {"hold": ["a"]}
        assert not os.get_inheritable(descriptors[0])
        held = Held()
        held.put("k/1/a", descriptors[0])
        os.write(held.descriptors["k/1/a"], b"x")
        assert os.read(reading, 10) == b"x"
        held.drop("k/1/")
        assert os.read(reading, 10) == b""
        os.close(reading)
        one.close()
        assert guard.receive(other) == (None, [])


def test_a_process_is_on_the_disk_before_it_runs(tmp_path: Path) -> None:
    launch(tmp_path, "/bin/sh", "-c", "cat process-3.json; echo $A; exit 5")
    spawned = spawn.spawn(str(tmp_path), 3)
    with open(spawned.output, "rb") as output:
        said = output.read()
    facts, _ = json.JSONDecoder().raw_decode(said.decode())
    assert (facts["pid"], facts["start"]) == (spawned.pid, spawned.start)
    assert said.endswith(b"b\n")
    assert not (tmp_path / spawn.LAUNCH).exists()
    assert os.waitpid(spawned.pid, 0)[1] == 5 << 8
    assert not procinfo.is_alive(spawned.pid, spawned.start)


def test_a_refused_exec_is_told_and_leaves_no_child(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}  # of other tests
    launch(tmp_path, "/no/such/program")
    with pytest.raises(spawn.SpawnFailed, match="/no/such/program: No such file or directory"):
        spawn.spawn(str(tmp_path), 1)
    launch(tmp_path, "/bin/true", cwd="/no/such/place")
    with pytest.raises(spawn.SpawnFailed, match="No such file or directory"):
        spawn.spawn(str(tmp_path), 1)
    with pytest.raises(spawn.SpawnFailed, match="launch record is gone"):
        spawn.spawn(str(tmp_path), 1)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_kernel_starts_with_clean_signals(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        launch(tmp_path, "/bin/sh", "-c", "grep SigIgn /proc/self/status")
        spawned = spawn.spawn(str(tmp_path), 1)
    finally:
        signal.signal(signal.SIGINT, before)
    with open(spawned.output, "rb") as output:
        assert output.read() == b"SigIgn:\t0000000000000000\n"
    os.waitpid(spawned.pid, 0)


def test_records_are_replaced_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "facts.json")
    assert records.read(path) is None
    records.write(path, {"a": 1})
    records.write(path, {"a": 2})
    assert records.read(path) == {"a": 2}
    assert os.listdir(tmp_path) == ["facts.json"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    (tmp_path / "facts.json").write_text("[1]")
    assert records.read(path) is None


def test_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    start = procinfo.start_of(os.getpid())
    assert procinfo.is_alive(os.getpid(), start)
    assert not procinfo.is_alive(os.getpid(), start + 1)
    assert procinfo.start_of(2**22 + 1) == 0
    mine = procinfo.sessions()[os.getsid(0)]
    assert os.getpid() in [one.pid for one in mine]
    assert procinfo.usage(mine).memory > 1 << 20


@pytest.mark.parametrize("unified", [True, False])
def test_memory_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unified: bool) -> None:
    job = tmp_path / "cg" / "job"
    step = job / "step"
    step.mkdir(parents=True)
    for place in (job, step):
        (place / "cgroup.procs").write_text("")
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "self").mkdir()
    kind = "cgroup2 cgroup2 rw" if unified else "cgroup cgroup rw,memory"
    mounts = f"30 20 0:27 /slice {tmp_path}/cg rw - {kind}\n"
    (tmp_path / "proc" / "self" / "mountinfo").write_text(mounts)
    line = "0::/slice/job/step" if unified else "4:memory:/slice/job/step\n0::/"
    (tmp_path / "proc" / "7" / "cgroup").write_text(line + "\n")
    limit, events, peak = (
        ("memory.max", "memory.events", "memory.peak")
        if unified
        else ("memory.limit_in_bytes", "memory.oom_control", "memory.max_usage_in_bytes")
    )
    (step / limit).write_text("max\n" if unified else "9223372036854771712\n")
    (job / limit).write_text(f"{4 << 30}\n")
    (step / events).write_text("oom_kill_disable 0\noom_kill 2\n")
    (step / peak).write_text(f"{3 << 30}\n")
    monkeypatch.setattr(procinfo, "PROC", str(tmp_path / "proc"))
    group = procinfo.memory_group(7)
    assert group is not None
    assert (group.directory, group.is_unified) == (str(step), unified)
    assert (group.oom_kills(), group.limit(), group.peak()) == (2, 4 << 30, 3 << 30)
    reason = reasons.of_exit(int(signal.SIGKILL), None, group, "")
    assert reason["kind"] == "oom"
    assert reason["text"].startswith(
        "Out of memory: the system killed it (the limit is 4.0 GiB, the peak was 3.0 GiB)"
    )
    assert reasons.of_exit(int(signal.SIGKILL), "stopped", group, "")["kind"] == "stopped"
    assert reasons.of_exit(int(signal.SIGTERM), None, group, "")["kind"] == "signal"


@given(st.text(max_size=300))
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", reasons.clean(text))


def test_the_last_lines() -> None:
    said = (
        b"".join(b"line %d\r\n" % number for number in range(30))
        + b"\x1b]0;title\x07\x1b[1;31mred\x1b[0m \xff\n\n"
    )
    lines = reasons.last_lines(said).split("\n")
    assert len(lines) == 20
    assert lines[-2:] == ["line 29", "red \ufffd"]


# -- what is run ------------------------------------------------------------------------------------------------


def spec(place: Path, **content: object) -> None:
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(content))


def test_kernelspecs_are_found_in_jupyters_order(home: Path, tmp_path: Path) -> None:
    spec(tmp_path / "one/kernels/R", argv=["R"], language="R", display_name="first")
    spec(home / ".local/share/jupyter/kernels/r", argv=["R"], language="R", display_name="second")
    environment = {"JUPYTER_PATH": str(tmp_path / "one"), "PATH": "/usr/bin"}
    assert specs.find("r", environment).display_name == "first"
    del environment["JUPYTER_PATH"]
    assert specs.find("R", environment).display_name == "second"
    assert specs.find("python3", environment).argv[0] == sys.executable
    with pytest.raises(NoKernelspec, match="did you mean python3"):
        specs.find("pyton3", environment)


def test_python_is_the_one_of_the_prefix(tmp_path: Path) -> None:
    spec(tmp_path / "env/share/jupyter/kernels/x", argv=["python3.11", "-m", "x", "{connection_file}"])
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/python3").symlink_to(sys.executable)
    environment = {"JUPYTER_PATH": str(tmp_path / "env/share/jupyter"), "PATH": "/usr/bin"}
    found = specs.find("x", environment)
    assert specs.complete_argv(found, "/c.json") == [f"{tmp_path}/env/bin/python3", "-m", "x", "/c.json"]


def test_the_environment_is_built_as_jupyter_does() -> None:
    asked = specs.NOTHING._replace(env={"PATH": "/opt:${PATH}", "PRICE": "$5", "X": "${UNKNOWN}"})
    base = {"PATH": "/bin", "JPY_PARENT_PID": "1", "FARKERNEL_BOOT": "x", "GONE": "1", "HERE": "2"}
    assert specs.complete_environment(base, asked, {"PATH": "/mine:${PATH}"}, ["GONE"]) == {
        "PATH": "/mine:/opt:/bin", "PRICE": "$5", "X": "${UNKNOWN}", "HERE": "2",
    }  # fmt: skip


def test_the_program_is_looked_for_where_the_kernel_will_look(tmp_path: Path) -> None:
    program = tmp_path / "prog"
    program.write_text("")
    with pytest.raises(NoProgram, match="prog was not found"):
        specs.find_program(["prog"], {"PATH": str(tmp_path)}, "/")
    program.chmod(0o755)
    assert specs.find_program(["prog"], {"PATH": str(tmp_path)}, "/") == str(program)
    assert specs.find_program(["./prog"], {}, str(tmp_path)) == f"{tmp_path}/./prog"
    with pytest.raises(BadRequest):
        specs.asked({"argv": ["a\0b"]}, {})
