"""Buffers and printed lines out of a kernel, against the same kernel used directly over the same transport."""

from __future__ import annotations

from _site import PYTHON_KERNEL, kernel, local_spec, menu_entry, round_trip, site
from report import Benchmark, Contestant, finish

MEGABYTES, LINES = 200, 200_000
BUFFERS = f"""
from comm import create_comm
chunk = bytes(50_000_000)
for _ in range({MEGABYTES // 50}):
    create_comm(target_name="bulk", data={{}}, buffers=[chunk])
"""
PRINTS = f"for number in range({LINES}): print('line', number)"


def main() -> None:
    bulk = Benchmark(f"{MEGABYTES} MB of buffers out of a kernel", "MB/s", "local kernel, ipc")
    lines = Benchmark("printed lines", "lines/s", "local kernel, ipc")
    with site() as top:
        local_spec("local", PYTHON_KERNEL)
        menu_entry("far", "local")
        direct = {"transport": "ipc", "ip": str(top / "runtime" / "direct")}
        with kernel("far") as (_, far), kernel("local", **direct) as (_, near):
            bulk.run(
                [
                    Contestant("local kernel, ipc", lambda: MEGABYTES / round_trip(near, BUFFERS)),
                    Contestant("farkernel", lambda: MEGABYTES / round_trip(far, BUFFERS)),
                ]
            )
            lines.run(
                [
                    Contestant("local kernel, ipc", lambda: LINES / round_trip(near, PRINTS)),
                    Contestant("farkernel", lambda: LINES / round_trip(far, PRINTS), at_least=0.95),
                ]
            )
    finish(bulk, lines)


if __name__ == "__main__":
    main()
