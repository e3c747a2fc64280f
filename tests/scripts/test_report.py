from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def report() -> Iterator[ModuleType]:
    """Benchmarks import it as `report`, from their own folder."""
    spec = importlib.util.spec_from_file_location("report", SCRIPTS / "benchmarks/report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "report", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the benchmark is called with; tests add to it."""
    line = ["benchmark.py"]
    monkeypatch.setattr(sys, "argv", line)
    return line


def test_the_contestants_take_turns(report: ModuleType, command_line: list[str]) -> None:
    calls: list[str] = []

    def measure(name: str, value: float) -> float:
        calls.append(name)
        return value

    command_line += ["--rounds", "2"]
    benchmark = report.Benchmark("sample", "s", "theirs")
    benchmark.run(
        [
            report.Contestant("ours", lambda: measure("ours", 3.0), at_most=2),
            report.Contestant("theirs", lambda: measure("theirs", 2.0)),
        ]
    )
    assert calls == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    ours, theirs = benchmark.results
    assert (ours.samples, ours.ratio, ours.promise, ours.kept) == ((3.0, 3.0), 1.5, "<= 2", True)
    assert (theirs.samples, theirs.ratio, theirs.kept) == ((2.0, 2.0), 1.0, None)


def test_the_baseline_is_one_of_the_contestants(report: ModuleType) -> None:
    with pytest.raises(ValueError, match="'theirs' must be one of"):
        report.Benchmark("sample", "s", "theirs").run([report.Contestant("ours", report.limit(1))])


@pytest.mark.parametrize(("part", "value"), [(0.0, 1.0), (0.5, 2.5), (0.95, 3.85), (1.0, 4.0)])
def test_quantiles(report: ModuleType, part: float, value: float) -> None:
    assert report.quantile([4.0, 1.0, 3.0, 2.0], part) == pytest.approx(value)
    assert report.quantile([7.0], part) == 7.0


def test_the_tables_and_the_file(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], command_line: list[str]
) -> None:
    file = tmp_path / "figures.json"
    command_line += ["--json", str(file)]
    first, second = report.Benchmark("round trip", "ms", "local"), report.Benchmark("lines", "1/s", "local")
    first.run(
        [report.Contestant("local", report.limit(5)), report.Contestant("far", report.limit(6), at_most=1.2)]
    )
    second.run(
        [
            report.Contestant("local", report.limit(100)),
            report.Contestant("far", report.limit(80), at_least=0.95),
        ]
    )
    with pytest.raises(SystemExit) as ended:
        report.finish(first, second)
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "round trip (ms, rounds: 5, against: local)",
        "       median  p95  min  max  ratio  promised",
        "local       5    5    5    5   1.00",
        "far         6    6    6    6   1.20    <= 1.2  kept",
        "",
        "lines (1/s, rounds: 5, against: local)",
        "       median  p95  min  max  ratio  promised",
        "local     100  100  100  100   1.00",
        "far        80   80   80   80   0.80   >= 0.95  MISSED",
        "",
    ]
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["name"] for record in records] == ["round trip", "lines"]
    assert records[1]["results"][1]["samples"] == [80] * 5
    with pytest.raises(SystemExit) as ended:
        report.finish(first)
    assert ended.value.code == 0


def test_the_dispatcher_knows_its_benchmarks() -> None:
    listed = subprocess.run(
        [SCRIPTS / "bench", "--list"], capture_output=True, text=True, timeout=30, check=True
    )
    names = {path.stem for path in (SCRIPTS / "benchmarks").glob("[!_]*.py")} - {"report"}
    assert set(listed.stdout.split()) == names
    wrong = subprocess.run(
        [SCRIPTS / "bench", "no-such"], capture_output=True, text=True, timeout=30, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("scripts/bench: no benchmark no-such. There are: ")
