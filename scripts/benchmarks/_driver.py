"""A notebook's side of a benchmark, run by whatever Python has the contestant: it needs jupyter_client alone.

One JSON object on each line of stdin, one on stdout: ``first`` (click to first result, then all is ended), ``open``,
``code`` (seconds of each of ``count`` runs), ``close``.  ``kernel`` names a kernelspec (with ``settings`` of its
KernelManager); or ``argv`` is run and ``file`` is the connection file of the kernel that it brings.
"""

import contextlib
import json
import subprocess
import sys
import time
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

DEADLINE = 90.0


class Notebook:
    def __init__(self, request: dict[str, Any]) -> None:
        self.manager: KernelManager | None = None
        self.process: subprocess.Popen[bytes] | None = None
        if "argv" in request:
            self.process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.client = BlockingKernelClient()
            self.client.load_connection_file(request["file"])
        else:
            self.manager = KernelManager(kernel_name=request["kernel"], **request.get("settings", {}))
            self.manager.start_kernel()
            self.client = self.manager.client()
        self.client.start_channels()

    def reply(self, code: str) -> None:
        asked = self.client.execute(code)
        while self.client.get_shell_msg(timeout=DEADLINE)["parent_header"].get("msg_id") != asked:
            pass

    def run(self, code: str) -> float:
        """Seconds from asking to having both the reply and the idle state."""
        began = time.perf_counter()
        asked = self.client.execute(code)
        idle = False
        while not idle:
            message = self.client.get_iopub_msg(timeout=DEADLINE)
            same = message["parent_header"].get("msg_id") == asked
            idle = same and message["content"].get("execution_state") == "idle"
        while self.client.get_shell_msg(timeout=DEADLINE)["parent_header"].get("msg_id") != asked:
            pass
        return time.perf_counter() - began

    def close(self) -> None:
        if self.manager is not None:
            self.client.stop_channels()
            self.manager.shutdown_kernel(now=True)
        if self.process is not None:
            with contextlib.suppress(
                Exception
            ):  # it ends the kernel; what else goes wrong is of no account now
                self.client.shutdown()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.client.stop_channels()
            self.process.kill()
            self.process.wait()


def first(request: dict[str, Any]) -> float:
    began = time.perf_counter()
    notebook = Notebook(request)
    try:
        notebook.reply("6 * 7")
        return time.perf_counter() - began
    finally:
        notebook.close()


def main() -> None:
    notebook: Notebook | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        try:
            if request["do"] == "first":
                answer = first(request)
            elif request["do"] == "open":
                notebook = Notebook(request)
                notebook.reply("6 * 7")
                time.sleep(
                    1
                )  # for the subscription: a forwarded port is there a while before what it leads to
            elif request["do"] == "code" and notebook is not None:
                answer = [notebook.run(request["code"]) for _ in range(request["count"])]
            elif request["do"] == "close" and notebook is not None:
                notebook.close()
                notebook = None
            print(json.dumps({"ok": answer}), flush=True)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the contestant's result
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
    if notebook is not None:
        notebook.close()


if __name__ == "__main__":
    main()
