"""Two hundred kernels on one host: connections, the keeper's memory, and what it costs when nothing happens."""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path

import psutil

from _site import local_spec, menu_entry, site
from farkernel.launcher.client import KeeperClient
from report import Benchmark, Contestant, finish, limit

KERNELS, IDLE = 200, 20.0
FAKE = Path(__file__).resolve().parents[2] / "tests" / "fakekernel.py"


def promised(name: str, unit: str, most: float, measured: float) -> Benchmark:
    """A figure against the number that was promised."""
    table = Benchmark(name, unit, "promised at most", rounds=1)
    table.run(
        [Contestant("promised at most", limit(most)), Contestant("farkernel", limit(measured), at_most=1)],
        warm_up=0,
    )
    return table


def main() -> None:
    with site():
        local_spec("fake", [sys.executable, str(FAKE), "{connection_file}"])
        menu_entry("far", "fake")
        client = KeeperClient()
        began = time.perf_counter()
        for _ in range(KERNELS):
            client.request(
                "launch",
                kernel=str(uuid.uuid4()),
                entry="far",
                settings={"target": "far"},
                front="provisioner",
            )
        print(f"{KERNELS} launch calls answered after {time.perf_counter() - began:.1f} s", flush=True)
        while any(row["state"] != "live" for row in client.request("list")["kernels"]):
            time.sleep(0.2)
        print(f"all live after {time.perf_counter() - began:.1f} s", flush=True)
        status = client.request("status")
        keeper = psutil.Process(int(status["pid"]))
        before, clock = sum(keeper.cpu_times()[:2]), time.perf_counter()
        time.sleep(IDLE)
        busy = (sum(keeper.cpu_times()[:2]) - before) / (time.perf_counter() - clock)
        memory = keeper.memory_info().rss / 1e6
        links = len(status["allocations"])
        client.close()
    finish(
        promised(f"{KERNELS} kernels: links", "", 1, links),
        promised(f"{KERNELS} kernels: the keeper's memory", "MB", 200, memory),
        promised(f"{KERNELS} kernels: the idle keeper, of a core", "%", 3, 100 * busy),
    )


if __name__ == "__main__":
    main()
