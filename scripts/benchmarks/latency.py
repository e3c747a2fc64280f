"""The execute round trip, p50 and p95, against the same kernel used directly over the same transport."""

from __future__ import annotations

from functools import partial

from jupyter_client.blocking.client import BlockingKernelClient

from _site import PYTHON_KERNEL, kernel, local_spec, menu_entry, round_trip, site
from report import Benchmark, Contestant, finish

PER_ROUND = 60


def quantile(client: BlockingKernelClient, part: float) -> float:
    """Milliseconds below which that part of the round trips stayed."""
    seconds = sorted(round_trip(client, "None") for _ in range(PER_ROUND))
    return 1000 * seconds[round(part * (PER_ROUND - 1))]


def main() -> None:
    tables = []
    with site() as top:
        local_spec("local", PYTHON_KERNEL)
        menu_entry("far", "local")
        direct = {"transport": "ipc", "ip": str(top / "runtime" / "direct")}
        with kernel("far") as (_, far), kernel("local", **direct) as (_, near):
            for name, part in (("p50", 0.5), ("p95", 0.95)):
                table = Benchmark(f"execute round trip, {name}", "ms", "local kernel", rounds=12)
                direct_trip, far_trip = partial(quantile, near, part), partial(quantile, far, part)
                ours = Contestant("farkernel", far_trip, at_most=1.2)
                table.run([Contestant("local kernel", direct_trip), ours])
                tables.append(table)
    finish(*tables)


if __name__ == "__main__":
    main()
