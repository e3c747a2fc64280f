"""What every benchmark shares: contestants measured in turn, in one run, and one way to show the result.

A benchmark is a file beside this one::

    from report import Benchmark, Contestant, finish

    start = Benchmark("click to first result", "s", "local kernel", rounds=9)
    start.run([Contestant("local kernel", theirs), Contestant("farkernel", ours, at_most=1.2)])
    finish(start)

``ours`` and ``theirs`` do the thing once and return what it took, or what was reached (then promised ``at_least``).
The contestants take turns, another one being first in each round, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """Something to measure, and the ratio to the baseline that it is promised to keep (DESIGN §6)."""

    name: str
    measure: Callable[[], float]
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Result:
    """All that was measured of one contestant."""

    name: str
    samples: tuple[float, ...]
    ratio: float  # of the medians, to the baseline
    promise: str
    kept: bool | None  # None: nothing was promised

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def percentile_95(self) -> float:
        return sorted(self.samples)[max(0, round(0.95 * len(self.samples)) - 1)]


@dataclass
class Benchmark:
    """One table of figures.  ``baseline`` names the contestant that the others are compared with."""

    name: str
    unit: str
    baseline: str
    rounds: int = 5
    results: list[Result] = field(default_factory=list)

    def run(self, contestants: Sequence[Contestant], warm_up: int = 1) -> None:
        """Measure all of them, in turn; the first ``warm_up`` rounds do not count."""
        names = [contestant.name for contestant in contestants]
        if self.baseline not in names or len(set(names)) < len(names):
            raise ValueError(f"{self.baseline!r} must be one of {names}, and each name there once")
        rounds = arguments().rounds or self.rounds
        samples: dict[str, list[float]] = {name: [] for name in names}
        for number in range(-warm_up, rounds):
            first = number % len(contestants)
            for contestant in [*contestants[first:], *contestants[:first]]:
                value = contestant.measure()
                if number >= 0:
                    samples[contestant.name].append(value)
        base = statistics.median(samples[self.baseline])
        self.results = [judge(contestant, samples[contestant.name], base) for contestant in contestants]

    @property
    def kept(self) -> bool:
        """Whether no promise was missed."""
        return all(result.kept is not False for result in self.results)

    def table(self) -> str:
        rows: list[tuple[str, ...]] = [("", "median", "p95", "min", "max", "ratio", "promised", "")]
        for result in self.results:
            figures = (result.median, result.percentile_95, min(result.samples), max(result.samples))
            verdict = {None: "", True: "kept", False: "MISSED"}[result.kept]
            shown = (f"{figure:.4g}" for figure in figures)
            rows.append((result.name, *shown, f"{result.ratio:.2f}", result.promise, verdict))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rounds = len(self.results[0].samples) if self.results else 0
        lines = [f"{self.name} ({self.unit}, rounds: {rounds}, against: {self.baseline})"]
        for name, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "baseline": self.baseline,
            "results": [
                {
                    "name": result.name,
                    "median": result.median,
                    "ratio": result.ratio,
                    "promise": result.promise,
                    "kept": result.kept,
                    "samples": result.samples,
                }
                for result in self.results
            ],
        }


def limit(value: float) -> Callable[[], float]:
    """A contestant that needs no measuring: a promise in absolute figures, or what was measured already."""
    return lambda: value


def judge(contestant: Contestant, samples: Sequence[float], base: float) -> Result:
    """Compare the median with the baseline's, and the ratio with what was promised."""
    ratio = statistics.median(samples) / base if base else float("inf")
    promises, kept = [], []
    if contestant.at_most is not None:
        promises.append(f"<= {contestant.at_most:g}")
        kept.append(ratio <= contestant.at_most)
    if contestant.at_least is not None:
        promises.append(f">= {contestant.at_least:g}")
        kept.append(ratio >= contestant.at_least)
    return Result(contestant.name, tuple(samples), ratio, ", ".join(promises), all(kept) if kept else None)


def quantile(samples: Sequence[float], part: float) -> float:
    """The sample below which that part of them lies, between two of them in proportion."""
    ordered = sorted(samples)
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def finish(*benchmarks: Benchmark) -> None:
    """Show the tables, keep them where ``--json`` says (one line each), and exit with 1 if a promise was missed."""
    machine = {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    file: Path | None = arguments().json
    for benchmark in benchmarks:
        print(benchmark.table(), end="\n\n", flush=True)
        if file is not None:
            with file.open("a", encoding="utf-8") as stream:
                print(json.dumps({**benchmark.as_dict(), "machine": machine}), file=stream)
    sys.exit(not all(benchmark.kept for benchmark in benchmarks))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures, and says whether what is promised is kept.")
    parser.add_argument("--rounds", type=int, help="how often each contestant is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the figures to this file")
    return parser.parse_args()
