"""Click to first result: a kernel of this machine through Farkernel against the same kernel started
by Jupyter itself.
"""

from __future__ import annotations

import subprocess
import sys
import time

from jupyter_client.manager import KernelManager

from _site import PYTHON_KERNEL, local_spec, menu_entry, site
from report import Benchmark, Contestant, finish, limit


def first_result(name: str) -> float:
    began = time.perf_counter()
    manager = KernelManager(kernel_name=name)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    msg_id = client.execute("6 * 7")
    while client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != msg_id:
        pass
    seconds = time.perf_counter() - began
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return seconds


def imported(module: str) -> float:
    """Seconds until a fresh interpreter has imported the module and ended."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - began


def own_time() -> float:
    """What ``farkernel launch`` adds to a bare interpreter before it can begin."""
    return 1000 * (imported("farkernel.launcher.launch") - imported("sys"))


def main() -> None:
    start = Benchmark("click to first result, agent there", "s", "local kernel", rounds=9)
    own = Benchmark("farkernel launch, own time to imported", "ms", "promised at most", rounds=9)
    with site():
        local_spec("local", PYTHON_KERNEL)
        menu_entry("far", "local")
        # The warm-up starts the keeper and the agent: what is measured is a click when they are there.
        start.run(
            [
                Contestant("local kernel", lambda: first_result("local")),
                Contestant("farkernel", lambda: first_result("far"), at_most=1.2),
            ]
        )
        own.run(
            [Contestant("promised at most", limit(60)), Contestant("farkernel launch", own_time, at_most=1)]
        )
    finish(start, own)


if __name__ == "__main__":
    main()
