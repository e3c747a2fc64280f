"""A notebook on a kernel in a batch job."""

from __future__ import annotations

import os
import signal
import time

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from farkernel.launcher.errors import FarkernelError

from .engine import DEADLINE, Engine, run_cell, wait_until


class Notebook:
    """One kernel with one client."""

    def __init__(self, name: str) -> None:
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel()
        self.client = BlockingKernelClient()
        self.client.load_connection_file(self.manager.connection_file)
        self.client.start_channels()

    def ready(self, deadline: float = DEADLINE) -> BlockingKernelClient:
        self.client.wait_for_ready(timeout=deadline)
        return self.client

    def run(self, code: str, deadline: float = DEADLINE) -> str:
        """The last line that it printed: what was said while it was waited for comes before."""
        lines = run_cell(self.client, code, deadline).text.splitlines()
        return lines[-1] if lines else ""

    def said(self, words: str, deadline: float = DEADLINE) -> str:
        """The first text on iopub that holds these words."""
        end = time.monotonic() + deadline
        while True:
            message = self.client.get_iopub_msg(timeout=max(end - time.monotonic(), 0.01))
            text = str(message["content"].get("text", ""))
            if words in text:
                return text

    def told(self, words: str, deadline: float = DEADLINE) -> str:
        """What cells show, one after the other, up to the first that holds these words."""
        end = time.monotonic() + deadline
        while True:
            text = run_cell(self.client, "pass", max(end - time.monotonic(), 0.01)).text
            if words in text:
                return text
            time.sleep(0.2)

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel()


def kill_keeper(engine: Engine) -> None:
    """Whoever wants something of it then starts the next one."""
    keeper = engine.keeper_pid()
    os.kill(keeper, signal.SIGKILL)
    another_keeper(engine, keeper)


def another_keeper(engine: Engine, former: int) -> None:
    """Wait for it: a plain client takes a heartbeat that stops for a second for the kernel's death."""

    def again() -> bool:
        try:
            return engine.keeper_pid() != former
        except FarkernelError:
            return False

    wait_until(again, "another keeper")
