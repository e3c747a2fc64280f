"""Output floods a line of 100 kbit/s: what a person does meanwhile does not stand in that queue (DESIGN §6)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.engine import DEADLINE, Engine, collect, run_cell, wait_until
from ..sites.far import Far, Notebook, far_site

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

RATE = 100_000 / 8
FULL = (
    3.0  # seconds after which the line is full; a kernel that prints so fast puts megabytes into one message
)
PROMPT = 1.0  # seconds (DESIGN §6)
FLOOD = """
import os, base64
while True:
    print(base64.b64encode(os.urandom(3000)).decode())
"""


@pytest.fixture
def far(engine: Engine, home: Path) -> Iterator[Far]:
    with far_site(engine, home.parent) as far:
        yield far


@pytest.fixture
def notebook(far: Far) -> Iterator[Notebook]:
    with Notebook(far.engine) as notebook:
        assert "up" in run_cell(notebook.client, "print('up')").text
        yield notebook


def narrow(far: Far, delay: float) -> None:
    """The line has never been another one for the connection that is made now."""
    far.wire.rate, far.wire.delay = RATE, delay
    logins = far.host.logins()
    far.wire.cut()
    wait_until(lambda: far.host.logins() > logins, "another login")
    far.link_is(up=True)


def flooded(far: Far, notebook: Notebook, delay: float = 0.0) -> str:
    """A cell that prints far more than the line takes, for some seconds already."""
    narrow(far, delay)
    cell = str(notebook.client.execute(FLOOD))
    time.sleep(FULL)
    return cell


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_an_interrupt_takes_less_than_a_second(
    far: Far, notebook: Notebook, home: Path, delay: float
) -> None:
    """Until the kernel has it, which says so in a file."""
    mark = home / "interrupted"
    code = f"try:\n{indented(FLOOD)}\nexcept KeyboardInterrupt:\n    open({str(mark)!r}, 'w').close()"
    narrow(far, delay)
    took = []
    for _ in range(3):
        notebook.client.execute(code)
        time.sleep(FULL)
        asked = time.monotonic()
        notebook.interrupt()
        answered = time.monotonic() - asked
        wait_until(mark.exists, "the interrupt")
        took.append((time.monotonic() - asked, answered))
        mark.unlink()
    print(f"\ninterrupts over {RATE * 8 / 1000:.0f} kbit/s, {delay * 1000:.0f} ms: {took}")
    assert max(took)[0] < PROMPT


def test_kernel_info_is_answered_in_less_than_a_second(far: Far, notebook: Notebook) -> None:
    """By the kernel itself, on its control channel, which is read while a cell runs."""
    cell = flooded(far, notebook)
    took = []
    for _ in range(5):
        message = notebook.client.session.msg("kernel_info_request")
        began = time.monotonic()
        notebook.client.control_channel.send(message)
        while True:
            reply = notebook.client.control_channel.get_msg(timeout=DEADLINE)
            if reply["parent_header"]["msg_id"] == message["header"]["msg_id"]:
                break
        took.append(time.monotonic() - began)
    print(f"\nkernel_info over {RATE * 8 / 1000:.0f} kbit/s: median {statistics.median(took):.2f} s, {took}")
    assert (
        statistics.median(took) < PROMPT
    )  # a kernel that prints without end may take a third of it to answer
    notebook.interrupt()
    far.wire.rate = None
    assert "KeyboardInterrupt" in collect(notebook.client, cell, 60).error


def indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.strip().splitlines())
