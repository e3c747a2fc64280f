"""How resources are shown: bars, widths, colours, the page; with a small keeper that answers as we want."""

from __future__ import annotations

import html.parser
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.cli import bars, cluster_lines, machine_lines, main, resources
from farkernel.launcher.cli.machine_lines import Line
from farkernel.launcher.cli.resources import Looked
from farkernel.launcher.cli.schemas import SCHEMAS
from farkernel.launcher.cli.table import cells_wide
from farkernel.launcher.client import keeper_directory
from farkernel.launcher.discovery.cluster import (
    Account,
    Cluster,
    ClusterProblem,
    Gpus,
    Limit,
    MyJob,
    Node,
    Queue,
    with_nodes,
)
from farkernel.launcher.discovery.machine import Machine, read_machine
from tests.launcher.fake_keeper import FakeKeeper

GIB = 1 << 30
H100 = {
    "vendor": "nvidia",
    "kind": "gpu",
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-1",
    "index": 0,
    "use": 0.97,
    "memory_total": 80 * GIB,
    "memory_used": 70 * GIB,
    "temperature": 71,
    "compute_mode": "default",
    "processes": [{"pid": 4711, "user": "ada", "name": "python", "memory": 69 * GIB}],
}
MIG = {"vendor": "nvidia", "kind": "mig", "name": "A100 MIG 3g.20gb", "index": 1, "slot": 4,
       "memory_total": 20 * GIB, "memory_used": GIB, "lease": {"user": "bob", "kernel": "0123456789"}}  # fmt: skip
BIG: dict[str, Any] = {
    "version": 1,
    "host": {"name": "gpu1", "distribution": "Debian GNU/Linux 12 (bookworm)", "model": "Dell Inc. PowerEdge R750xa"},
    "uptime": 300000.0,
    "load": [12.5, 9.25, 7.0],
    "users": [{"name": "ada", "sessions": 2}],
    "cpu": {"model": "Intel(R) Xeon(R) Gold 6248", "cores": 40, "threads": 80, "usable": 16, "limit": 8.0, "use": 0.78},
    "memory": {"total": 256 * GIB, "available": 64 * GIB, "limit": 64 * GIB, "limit_used": 16 * GIB},
    "swap": {"total": 8 * GIB, "free": 8 * GIB},
    "disks": [
        {"path": "/", "type": "ext4", "total": 100 * GIB, "free": 2 * GIB, "used": 93 * GIB, "writable": True},
        {"path": "/home", "type": "nfs4", "network": True, "total": 1000 * GIB, "free": 400 * GIB, "writable": True},
    ],
    "quotas": [{"path": "/home", "used": 45 * GIB, "quota": 50 * GIB}],
    "nvidia": {"driver": "550.54.15", "cuda": "12.4"},
    "gpus": [H100, {**H100, "index": 1, "mig": True, "use": None, "processes": [], "memory_used": None}, MIG],
    "cuda": {"toolkits": [{"path": "/usr/local/cuda", "version": "12.4.1"}]},
    "opencl": [
        {"where": "host", "name": "PoCL", "devices": [{"name": "cpu", "type": ["cpu"], "compute_units": 8, "memory": GIB}]},
        {"where": "/x/python", "name": "PoCL", "devices": [{"name": "cpu", "type": ["cpu"], "compute_units": 8, "memory": GIB}]},
        {"where": "/x/python", "name": "Other"},
    ],
    "boards": [{"device": "/dev/ttyUSB0", "vid": "10c4", "pid": "ea60", "product": "CP2102", "usable": False}],
    "problems": [{"part": "disks", "what": "no answer within 5 s (/scratch)"}],
}  # fmt: skip
PI = {
    "host": {"name": "pi3", "model": "Raspberry Pi 4 Model B Rev 1.4"},
    "raspberrypi": {
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "temperature": 81.3,
        "throttled": ["under-voltage"],
        "gpio": [{"name": "gpiochip0", "lines": 58}],
        "cameras": [{"name": "imx708", "kind": "csi"}],
    },
}
LOOKED = [
    Looked("gpu", "ssh://gpu1", read_machine(BIG)),
    Looked("pi", "ssh://pi3", read_machine(PI)),
    Looked(
        "gone", "ssh://gone", None, "no answer within 15 s", "See what is in the way: farkernel doctor gone"
    ),
]


@pytest.fixture
def keeper() -> Iterator[FakeKeeper]:
    with FakeKeeper(Path(keeper_directory())) as fake:
        fake.handlers["probe"] = lambda request: {
            "targets": {
                "gpu": {"ok": True, "machine": BIG},
                "gone": {"ok": False, "what": "no answer within 15 s", "advice": "See"},
            }
        }
        main(["add", "gpu", "ssh://gpu1"])
        main(["add", "gone", "ssh://gone"])
        yield fake


NODES = (
    Node("gpu1", "mixed", queues=("gpu",), cpus=64, cpus_free=16, memory=256 * GIB, memory_free=64 * GIB,
         gpus=(Gpus("a100", 4, 1),)),
    Node("cpu1", "idle", queues=("main",), cpus=32, cpus_free=32, memory=64 * GIB, memory_free=64 * GIB),
    Node("cpu2", "down", word="down*", queues=("main",), cpus=32, cpus_free=0),
)  # fmt: skip
CLUSTER = Cluster(
    scheduler="Slurm",
    release="24.05.1",
    time=0.0,
    queues=(
        with_nodes(Queue("main", default=True, time_limit=86400, waiting=3), NODES),
        with_nodes(Queue("gpu", time_limit=7200, time_default=3600, limits=(Limit("user", "gpus", 2, "QOS gpu"),)), NODES),
        with_nodes(Queue("secret", usable=False, why="only for the groups chiefs"), NODES),
    ),
    nodes=NODES,
    accounts=(Account("physics", qos=("normal",)),),
    jobs=(
        MyJob("7", "fk-x", "queued", "gpu", reason="it is next", ours=True),
        MyJob("6", "train", "running", "gpu", "gpu1"),
    ),
    problems=(ClusterProblem("partitions", "no answer"),),
)  # fmt: skip
OF_THE_CLUSTER = [
    Looked("big", "slurm://login/gpu", None, cluster=CLUSTER),
    Looked("usual", "slurm://login", None, cluster=CLUSTER),
]

# -- lines -------------------------------------------------------------------------------------------------


def shown(machine: dict[str, Any], columns: int = 100) -> list[str]:
    return bars.draw(machine_lines.lines(read_machine(machine)), columns, False)


def test_what_is_shown_of_a_large_machine() -> None:
    text = "\n".join(shown(BIG, 200))
    for words in (
        "78 %  Intel(R) Xeon(R) Gold 6248, 40 cores, 80 threads, 16 usable, limited to 8 CPUs",
        "192 GiB of 256 GiB",
        "16.0 GiB of 64.0 GiB  of the control group",
        "GPU 0 ",
        "97 %  NVIDIA H100 80GB HBM3, 71 °C",
        "70.0 GiB of 80.0 GiB  ada: python (pid 4711, 69.0 GiB)",
        "NVIDIA H100 80GB HBM3, parted by MIG",
        "MIG 1.4 ",
        "1.0 GiB of 20.0 GiB  A100 MIG 3g.20gb, leased by bob (kernel 01234567)",
        "2.0 GiB free  /",
        "400 GiB free  /home, nfs4",
        "driver 550.54.15 for CUDA up to 12.4",
        "12.4.1 in /usr/local/cuda",
        "PoCL: cpu (cpu, 8 units, 1.0 GiB)",
        "Other in the kernel's environment: no devices",
        "/dev/ttyUSB0, CP2102, 10c4:ea60, not usable by you",
        "disks: no answer within 5 s (/scratch)",
    ):
        assert words in text, words
    assert text.count("PoCL") == 1


def test_what_is_not_there_has_no_line() -> None:
    assert machine_lines.lines(Machine()) == []
    assert machine_lines.title(Machine()) == ""


def test_what_is_full_or_hot_stands_out() -> None:
    levels = {line.label: line.level for line in machine_lines.lines(read_machine(BIG))}
    assert (levels["CPU"], levels["GPU 0"], levels["!"], levels["quota"]) == ("high", "full", "bad", "full")
    (pi,) = machine_lines.lines(read_machine(PI))
    assert (pi.level, pi.text) == ("bad", "81 °C, under-voltage, 58 GPIO lines, camera imx708")


@given(st.floats(0, 1), st.integers(1, 60), st.booleans())
def test_a_bar_has_its_width(part: float, width: int, plain: bool) -> None:
    drawn = bars.bar(part, width, plain)
    assert cells_wide(drawn) == width
    assert drawn.isascii() or not plain
    assert (drawn.strip(" .") == "") == (part == 0)


TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
LINES = st.lists(
    st.builds(
        Line,
        TEXT,
        st.none() | st.floats(0, 1),
        st.text("0123456789. GiB", max_size=18),
        TEXT,
        st.sampled_from(["", "high", "full", "bad", "dim"]),
    ),
    max_size=5,
)


@given(LINES, st.integers(60, 200))
def test_lines_fit_and_carry_no_escape_codes_of_others(lines: list[Line], columns: int) -> None:
    for line in bars.draw(lines, columns, False):
        assert cells_wide(line) <= columns
        assert line.isprintable()


# -- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal(columns: int) -> None:
    for line in resources.render(LOOKED, columns, False):
        assert cells_wide(line) <= columns


def test_targets_of_one_cluster_are_one_block() -> None:
    text = "\n".join(resources.render([OF_THE_CLUSTER[0], LOOKED[2], OF_THE_CLUSTER[1]], 200, False))
    head, *_ = text.splitlines()
    assert head == "big, usual  Slurm 24.05.1 · 3 nodes (1 mixed, 1 idle, 1 down)"
    for words in (
        "1 of 4 free  a100, in gpu1",
        "32 of 64 CPUs free  target usual, the default, 32 CPUs and 64.0 GiB free on one node, up to 24h, 3 jobs waiting",
        "16 of 64 CPUs free  target big, 1 of 4 GPUs free (a100), 64.0 GiB of memory free, up to 2h (1h if not said)",
        "at most 2 GPUs for you (QOS gpu)",
        "only for the groups chiefs",
        "account  physics, QOS normal",
        "your job 7 fk-x (a kernel's) queued in gpu, it is next",
        "your job 6 train running on gpu1",
        "partitions: no answer",
    ):
        assert words in text, words
    assert "memory free, in main" not in text
    nodes = "\n".join(resources.render(OF_THE_CLUSTER, 200, False, nodes=True))
    assert "32 of 32 CPUs free  idle, 64.0 GiB of 64.0 GiB of memory free, in main" in nodes
    assert "down*, in main" in nodes


def test_what_cannot_be_used_is_dim_and_what_is_full_stands_out() -> None:
    full = with_nodes(Queue("gpu"), [Node("n", cpus=20, cpus_free=1, gpus=(Gpus("a100", 4, 0),))])
    levels = {line.label: line.level for line in cluster_lines.lines(Cluster(queues=(full,)), {})}
    assert levels == {"gpu": "full"}
    assert [line.level for line in cluster_lines.lines(CLUSTER, {})][3] == "dim"


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_cluster_fits_the_terminal(columns: int) -> None:
    shown = resources.render(OF_THE_CLUSTER, columns, False, nodes=True)
    assert all(cells_wide(line) <= columns for line in shown[1:]), shown


def test_a_cluster_on_the_page_and_as_json(keeper: FakeKeeper, capsys: pytest.CaptureFixture[str]) -> None:
    page = resources.page(OF_THE_CLUSTER)
    assert "<h2>big, usual<small>slurm://login/gpu, slurm://login</small></h2>" in page
    assert "<summary>3 nodes</summary>" in page
    main(["add", "slow", "slurm://login/gpu"])
    keeper.handlers["probe"] = lambda request: {"targets": {"slow": {"ok": True, "cluster": asdict(CLUSTER)}}}
    capsys.readouterr()
    assert main(["resources", "slow", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    jsonschema.validate([row], SCHEMAS["resources"])
    assert (row["ok"], row["queue"], row["cluster"]["queues"][1]["name"]) == (True, "gpu", "gpu")


def test_one_that_cannot_be_reached_costs_its_line_only(
    keeper: FakeKeeper, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["resources"]) == 0
    said = capsys.readouterr().out
    assert "gpu  gpu1 · Debian GNU/Linux 12" in said
    assert "gone  failed  no answer within 15 s. See" in said
    assert "\x1b" not in said
    request = keeper.wait_for("probe")
    assert (sorted(request["targets"]), request["deadline"]) == (["gone", "gpu"], 15.0)


def test_only_those_that_are_named(keeper: FakeKeeper, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resources", "gone"]) == 1
    assert keeper.wait_for("probe")["targets"] == ["gone"]
    assert capsys.readouterr().err == "farkernel: no answer within 15 s. See\n"


def test_json(keeper: FakeKeeper, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["resources", "--json"]) == 0
    gone, gpu = sorted(json.loads(capsys.readouterr().out), key=lambda row: row["target"])
    assert (gone["ok"], gone["machine"], gone["what"]) == (False, None, "no answer within 15 s")
    assert gpu["machine"]["gpus"][0]["processes"][0]["user"] == "ada"


def test_an_unknown_target_is_said(keeper: FakeKeeper, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resources", "gpo"]) == 1
    assert "there is no target 'gpo' in the configuration. Did you mean 'gpu'?" in capsys.readouterr().err


def test_no_targets_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resources"]) == 0
    assert "farkernel add here local:" in capsys.readouterr().out


def in_terminal(*arguments: str, **environment: str) -> tuple[str, int]:
    """What it writes to a terminal of 80 columns until it ends, or has shown two looks; its exit status."""
    command = [sys.executable, "-P", "-m", "farkernel", "resources", *arguments]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(
            command[0],
            command,
            {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", **environment},
        )
    said, interrupted = b"", False
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            said += data
        if said.count(b"\x1b[H") >= 2 and not interrupted:
            interrupted = True  # once: another one, while Python ends, is another end
            os.kill(pid, signal.SIGINT)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return said.decode(), os.waitstatus_to_exitcode(status)


def test_colours_on_a_terminal_and_not_with_no_color(keeper: FakeKeeper) -> None:
    said, status = in_terminal()
    assert status == 0
    assert "\x1b[1mgpu\x1b[0m" in said
    assert re.search("\x1b\\[31m█+", said)
    plain, _ = in_terminal(NO_COLOR="1")
    assert "\x1b" not in plain
    assert "█" in plain


def test_watch_fills_the_screen_and_gives_it_back(keeper: FakeKeeper) -> None:
    said, status = in_terminal("--watch", "0.5", LINES="12")
    assert status == 130
    assert said.startswith("\x1b[?1049h\x1b[?25l")
    assert said.endswith("\x1b[?25h\x1b[?1049l")
    assert "more lines" in said  # the terminal has 12
    assert len(keeper.asked()) >= 2


def test_a_terminal_that_knows_ascii_only(keeper: FakeKeeper) -> None:
    said = subprocess.run(
        [sys.executable, "-P", "-m", "farkernel", "resources", "gpu"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:replace"},
    ).stdout
    assert b"|####" in said


# -- the page ----------------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_is_well_formed() -> None:
    page = resources.page(LOOKED)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {name for name, _ in tags.attributes} & {"src", "href"}
    assert "url(" not in page
    assert "@import" not in page
    assert "//" not in page.replace("ssh://", "")
    assert "2 of 3 targets" in tags.text
    assert "ada: python (pid 4711, 69.0 GiB)" in tags.text
    assert "farkernel doctor gone" in tags.text


def test_what_a_far_end_says_is_never_markup() -> None:
    evil = "<script>alert('x')</script>\x1b[2J\""
    machine = read_machine({"host": {"name": evil}, "gpus": [{"name": evil}], "boards": [{"device": evil}]})
    page = resources.page([Looked(evil, evil, machine), Looked(evil, evil, None, evil, evil)])
    assert "<script" not in page
    assert "\x1b" not in page


def test_the_page_is_written(keeper: FakeKeeper, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "resources.html"
    assert main(["resources", "--html", str(path)]) == 0
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert main(["resources", "--html", str(tmp_path / "no" / "where.html")]) == 1
    assert "cannot be written: No such file or directory. Name another file" in capsys.readouterr().err
