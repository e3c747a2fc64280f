"""A host over SSH behind a wire, and notebooks whose kernels run there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

from farkernel.launcher.errors import FarkernelError

from .engine import DEADLINE, Engine, wait_until
from .ssh import Sshd
from .wire import Wire, wire_to

TICKS = """
import time
for number in range({count}):
    print(number, flush=True)
    time.sleep(0.05)
"""


class Notebook:
    """A client of one kernel; ``fields`` are those of the keeper's `launch`."""

    def __init__(self, engine: Engine, target: str = "far", **fields: Any) -> None:
        self.engine = engine
        request = {"entry": target, "settings": {"target": target}, "cwd": "/", "env": {}, **fields}
        launched = engine.client.request("launch", **request)
        self.kernel = str(launched["kernel"])
        self.connect(launched["connection"])

    def connect(self, connection: Mapping[str, Any]) -> None:
        self.client = BlockingKernelClient()
        info: Any = {**connection, "key": connection["key"].encode()}
        self.client.load_connection_info(info)
        self.client.start_channels()
        self.client.iopub_channel.get_msg(timeout=DEADLINE)  # iopub_welcome: what is published now will come

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.stop_channels()

    @property
    def state(self) -> str:
        return str(self.engine.kernel(self.kernel)["state"])

    def interrupt(self) -> None:
        self.engine.client.request("interrupt", kernel=self.kernel)

    def shown(self, wanted: str, deadline: float = DEADLINE) -> tuple[dict[str, Any], float]:
        """The next output that has this in it, and when it came."""
        end = time.monotonic() + deadline
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            if wanted in str(message["content"]):
                return message, time.monotonic()


class Ticking:
    """A cell that prints numbers, and what has come of it."""

    def __init__(self, notebook: Notebook, seconds: float) -> None:
        self.notebook = notebook
        self.text = ""
        self.notices: list[str] = []
        self.count = int(seconds * 20)
        self.cell = notebook.client.execute(TICKS.format(count=self.count))
        self.ended = False
        self.next(DEADLINE)

    def next(self, deadline: float) -> float:
        """Wait for output; returns when it came."""
        end = time.monotonic() + deadline
        while not self._take(max(0.0, end - time.monotonic())):
            pass
        return time.monotonic()

    def _take(self, timeout: float) -> bool:
        """One message; whether it came from the kernel."""
        message = self.notebook.client.get_iopub_msg(timeout=timeout)
        if message["parent_header"].get("msg_id") != self.cell:
            return False
        if "display_data" in message["msg_type"]:
            self.notices.append(message["content"]["data"]["text/plain"])
            return False
        if message["msg_type"] == "stream":
            self.text += message["content"]["text"]
        self.ended = message["content"].get("execution_state") == "idle"
        return True

    def drain(self) -> None:
        """Take what is there already."""
        while self.notebook.client.iopub_channel.msg_ready():
            self._take(DEADLINE)

    def to_the_end(self) -> None:
        while not self.ended:
            self.next(DEADLINE)
        assert [int(line) for line in self.text.split()] == list(range(self.count))


class Far:
    """What a test has in hand."""

    def __init__(self, engine: Engine, host: Sshd, wire: Wire) -> None:
        self.engine = engine
        self.host = host
        self.wire = wire

    def target(self, name: str = "far", **settings: Any) -> None:
        """A target at the other end of the wire."""
        address = f"ssh://{self.host.user}@127.0.0.1:{self.wire.port}"
        given = {"kernel": "python3", "ssh_config": str(self.host.client_config), **settings}
        self.engine.target(name, address=address, **given)

    def hang_up(self) -> None:
        """End the kernels, which needs the link, and the keeper."""
        with suppress(FarkernelError):
            if self.engine.client.request("status")["allocations"]:
                self.link_is(up=True)
        self.engine.close()

    def link(self) -> dict[str, Any]:
        """The keeper's view of the only link that there is."""
        (row,) = self.engine.client.request("status")["allocations"]
        return dict(row)

    def link_is(self, up: bool, deadline: float = DEADLINE) -> None:
        wait_until(
            lambda: (self.link()["link"] == "up") is up, f"the link to be {'up' if up else 'down'}", deadline
        )


@contextmanager
def far_site(engine: Engine, directory: Path, **options: str) -> Iterator[Far]:
    """sshd with these options; ``far`` is a target there.  Everything is ended before the wire is taken away."""
    with Sshd(directory / "sshd", options) as host:
        host.write_client_config()
        with wire_to(host) as wire:
            far = Far(engine, host, wire)
            far.target()
            try:
                yield far
            finally:
                wire.cut_after = None
                wire.rate, wire.delay = None, 0.0
                wire.heal()
                far.hang_up()
            wait_until(lambda: not host.agents(), "the far agent to end", 20)
