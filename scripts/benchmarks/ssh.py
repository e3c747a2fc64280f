"""Kernels over SSH, against the local kernel, against `ssh -L` by hand, and against others of our field (DESIGN §6)."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import _peers
from _site import PYTHON_KERNEL, local_spec, menu_entry, site
from _ssh_contestants import ByHand, Driver, Failed, Plain, remote_ikernel, sshpyk
from farkernel.launcher.client import KeeperClient
from report import Benchmark, Contestant, finish, limit, quantile
from tests.sites.engine import wait_until
from tests.sites.lossy_network import LossyNetwork, lossy_network
from tests.sites.netns import inside
from tests.sites.ssh import Sshd

TRIPS, MEGABYTES, LINES = 60, 200, 200_000
BUFFERS = f"""
from comm import create_comm
chunk = bytes(50_000_000)
for _ in range({MEGABYTES // 50}):
    create_comm(target_name="bulk", data={{}}, buffers=[chunk])
"""
PRINTS = f"for number in range({LINES}): print('line', number)"
LOCAL, BY_HAND = "local kernel", "ssh -N -L, by hand"
HELD, SPARE, COLD = "farkernel, held", "farkernel, warm spare", "farkernel, cold"
START_KEEPER = "from farkernel.launcher.client import KeeperClient; KeeperClient().request('status')"

Code = Callable[[Plain], float]


def peers() -> dict[str, Path | str]:
    """The Python of each, or why there is none."""
    found: dict[str, Path | str] = {}
    for name, packages in (
        ("sshpyk", ["sshpyk", "jupyter_client", "ipykernel"]),
        ("remote_ikernel", ["remote_ikernel", "jupyter_client", "ipykernel", "setuptools<81"]),
    ):
        try:
            found[name] = _peers.environment(name, packages)
        except subprocess.CalledProcessError as error:
            found[name] = f"pip install failed: {(error.stderr or str(error)).strip()[-500:]}"
    return found


class Arena:
    """Everybody who takes part, on one pair of hosts."""

    def __init__(self, top: Path, net: LossyNetwork, host: Sshd, others: dict[str, Path | str]) -> None:
        self.host = host
        self.net = net
        self._stack = contextlib.ExitStack()
        local_spec("local", PYTHON_KERNEL)
        config = f'ssh_config = "{host.client_config}"'
        menu_entry("far", "local", host.address, config)
        menu_entry("spare", "local", host.address, config, "warm = 1")
        ours = self._driver(sys.executable)
        self.local = Plain(LOCAL, self._driver(sys.executable), "local")
        self.near = Plain(
            LOCAL, self.local.driver, "local", transport="ipc", ip=str(top / "runtime" / "direct")
        )
        self.far = Plain(HELD, ours, "far")
        self.spare = Plain(SPARE, ours, "spare")
        self.by_hand = [
            ByHand(BY_HAND, self._driver(sys.executable), host, top, PYTHON_KERNEL, apart=True),
            ByHand(
                "ssh -L, one command", self._driver(sys.executable), host, top, PYTHON_KERNEL, apart=False
            ),
        ]
        self.others = list(self._others(top, others))

    def _driver(self, python: str) -> Driver:
        driver = Driver(self.net, python)
        self._stack.callback(driver.close)
        return driver

    def _others(self, top: Path, others: dict[str, Path | str]) -> Iterator[Plain]:
        """Those that can start a kernel at all."""
        for name, python in others.items():
            try:
                if isinstance(python, str):
                    raise Failed(python)
                if name == "sshpyk":
                    one = sshpyk(self.net, self.host, python, top, "local")
                else:
                    one = remote_ikernel(self.net, self.host, python, top, PYTHON_KERNEL)
                self._stack.callback(one.driver.close)
                print(f"{one.name}: first result after {one.first():.1f} s", flush=True)
                yield one
            except Failed as error:
                print(f"{name} takes no part: {error}", flush=True)

    def close(self) -> None:
        self._stack.close()


def keeper() -> KeeperClient:
    return KeeperClient(start=False)


def with_spare(arena: Arena) -> float:
    """A spare waits, live; then the click."""

    def live() -> bool:
        with keeper() as client:
            rows = client.request("elsewhere", targets=["spare"])["kernels"]
        return any(row["spare"] and row["state"] == "live" for row in rows)

    if not arena.spare.request().get("used"):
        arena.spare.request()["used"] = True
        return arena.spare.first()  # nobody has asked for one yet
    wait_until(live, "a spare to be live")
    return arena.spare.first()


def cold(arena: Arena, with_keeper: bool) -> float:
    """No connection and no agent; without a keeper, or with one that has done nothing yet."""
    with contextlib.suppress(Exception), keeper() as client:
        client.request("end")
    wait_until(lambda: not arena.host.agents(), "the agent to end", 60)
    if with_keeper:
        command = [sys.executable, "-c", START_KEEPER]
        subprocess.run([*inside(arena.net.near), *command], check=True)
        time.sleep(1)
    return arena.far.first()


def start_tables(arena: Arena) -> list[Benchmark]:
    holder = Plain("holder", Driver(arena.net, sys.executable), "far")
    holder.open()  # so that the connection is held
    start = Benchmark("click to first result over SSH", "s", LOCAL, rounds=7)
    rivals = [Contestant(each.name, each.first) for each in (*arena.by_hand, *arena.others)]
    start.run(
        [
            Contestant(LOCAL, arena.local.first),
            Contestant(HELD, arena.far.first, at_most=1.2),
            Contestant(SPARE, partial(with_spare, arena), at_most=0.25),
            *rivals,
        ],
        warm_up=2,
    )
    holder.close()
    holder.driver.close()
    with keeper() as client:
        for row in client.request("status")["allocations"]:
            client.request("release", allocation=row["allocation"])
    first = Benchmark("click to first result over SSH, neither connection nor agent", "s", LOCAL, rounds=7)
    first.run(
        [
            Contestant(LOCAL, arena.local.first),
            Contestant(COLD, partial(cold, arena, True)),
            Contestant("farkernel, and no keeper", partial(cold, arena, False)),
        ]
    )
    near, far, _ = (result.median for result in first.results)
    promise = Benchmark("the same against what is promised", "s", "local kernel + 0.5 s", rounds=1)
    ours = Contestant(COLD, limit(far), at_most=1)
    promise.run([Contestant("local kernel + 0.5 s", limit(near + 0.5)), ours], warm_up=0)
    return [start, first, promise]


def in_open_kernels(arena: Arena) -> list[Benchmark]:
    running = [arena.near, arena.far, *arena.by_hand, *arena.others]
    for each in running:
        each.open()
    tables = trips(running)
    tables += compared(
        f"{MEGABYTES} MB of buffers",
        "MB/s",
        running,
        lambda each: MEGABYTES / each.run(BUFFERS)[0],
        BY_HAND,
        0.8,
    )
    tables += compared(
        "printed lines", "lines/s", running, lambda each: LINES / each.run(PRINTS)[0], LOCAL, 0.95
    )
    for each in running:
        each.close()
    return tables


def trips(running: Sequence[Plain]) -> list[Benchmark]:
    """Both quantiles out of the same round trips, against both baselines."""
    samples: dict[str, list[float]] = {each.name: [] for each in running}

    def some(each: Plain) -> float:
        taken = [1000 * seconds for seconds in each.run("None", TRIPS)]
        samples[each.name] += taken
        return statistics.median(taken)

    whole = Benchmark("execute round trip, medians of rounds", "ms", LOCAL, rounds=8)
    whole.run([Contestant(each.name, partial(some, each)) for each in running])
    tables = [whole]
    for name, part in (("p50", 0.5), ("p95", 0.95)):
        value = {each: quantile(taken[TRIPS:], part) for each, taken in samples.items()}
        for baseline, most in ((LOCAL, 1.2), (BY_HAND, 0.15)):
            table = Benchmark(f"execute round trip, {name}", "ms", baseline, rounds=1)
            promised = {HELD: most}
            table.run(
                [Contestant(each, limit(value[each]), at_most=promised.get(each)) for each in value],
                warm_up=0,
            )
            tables.append(table)
    return tables


def compared(
    name: str, unit: str, running: Sequence[Plain], code: Code, baseline: str, least: float
) -> list[Benchmark]:
    table = Benchmark(name, unit, baseline, rounds=5)
    promised = {HELD: least}
    table.run(
        [Contestant(each.name, partial(code, each), at_least=promised.get(each.name)) for each in running]
    )
    return [table]


def main() -> None:
    others = peers()
    with site() as top:
        home = top / "home"
        home.mkdir()
        os.environ["HOME"] = str(home)
        with lossy_network() as net, net.sshd(top / "sshd") as host:
            arena = Arena(top, net, host, others)
            try:
                tables = [*start_tables(arena), *in_open_kernels(arena)]
            finally:
                arena.close()
    finish(*tables)


if __name__ == "__main__":
    main()
