"""A route that asks, refuses and breaks: what people see in their cells, and what they can do there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from farkernel.launcher.client import KeeperClient
from farkernel.launcher.errors import RemoteError
from farkernel.launcher.local_end import link_notice

from ..sites.engine import DEADLINE, Engine, collect, run_cell, wait_until
from ..sites.gate import CODE, Gate, keeper_behind

pytestmark = [pytest.mark.servers]


@pytest.fixture
def gate(home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    with keeper_behind(gate, monkeypatch):
        yield gate


@pytest.fixture
def site(gate: Gate, engine: Engine) -> Engine:
    engine.target("far", address="ssh://gate")
    return engine


class Notebook:
    """A kernel and a client of it whose front end can ask its user."""

    def __init__(self, site: Engine) -> None:
        launched = site.client.request("launch", entry="far", settings={"target": "far"}, cwd="/", env={})
        self.kernel = str(launched["kernel"])
        self.client = BlockingKernelClient()
        connection: Any = {**launched["connection"], "key": launched["connection"]["key"].encode()}
        self.client.load_connection_info(connection)
        self.client.start_channels()
        self.client.iopub_channel.get_msg(timeout=DEADLINE)  # iopub_welcome: what is published now will come

    def prompt(self) -> dict[str, Any]:
        return dict(self.client.get_stdin_msg(timeout=DEADLINE)["content"])

    def close(self) -> None:
        self.client.stop_channels()


@pytest.fixture
def notebook(site: Engine, gate: Gate, request: pytest.FixtureRequest) -> Iterator[Notebook]:
    gate.asks = getattr(request, "param", True)
    notebook = Notebook(site)
    yield notebook
    notebook.close()


def test_a_code_is_asked_for_in_the_cell(notebook: Notebook, gate: Gate) -> None:
    ran = notebook.client.execute("print('hello')")
    assert notebook.prompt() == {"prompt": "Code: ", "password": True}
    notebook.client.input(CODE)
    assert "hello" in collect(notebook.client, ran).text


def test_a_wrong_code_is_said_and_asked_for_again(notebook: Notebook, gate: Gate) -> None:
    ran = notebook.client.execute("print('hello')")
    assert notebook.prompt()["password"]
    notebook.client.input("1")
    # A box for an answer has room for one line: why it is asked stands above it.
    assert notebook.prompt() == {"prompt": "Press Enter to try again: ", "password": False}
    while (shown := notebook.client.get_iopub_msg(timeout=DEADLINE))["msg_type"] != "stream":
        pass
    assert shown["content"]["text"] == "the gate refused that code. Look at your token again\n"
    assert shown["parent_header"]["msg_id"] == ran
    tries = gate.tries
    notebook.client.input("")
    assert notebook.prompt()["password"]
    assert gate.tries == tries + 1  # nothing is tried before the user says so
    notebook.client.input(CODE)
    assert "hello" in collect(notebook.client, ran).text


def test_a_front_end_that_cannot_ask_gets_an_error(notebook: Notebook) -> None:
    outcome = collect(notebook.client, notebook.client.execute("print('hello')", allow_stdin=False))
    assert outcome.reply["content"]["ename"] == "LinkDown"
    assert "farkernel login" in outcome.error
    # The next cell can ask, and the kernel comes up after all.
    ran = notebook.client.execute("print('hello')")
    assert notebook.prompt()["password"]
    notebook.client.input(CODE)
    assert "hello" in collect(notebook.client, ran).text


def test_interrupt_takes_the_cell_back_from_the_question(notebook: Notebook, site: Engine) -> None:
    ran = notebook.client.execute("print('hello')")
    assert notebook.prompt()["password"]
    site.client.request("interrupt", kernel=notebook.kernel)
    assert "KeyboardInterrupt" in collect(notebook.client, ran).error
    ran = notebook.client.execute("print('hello')")
    assert notebook.prompt()["password"]
    notebook.client.input(CODE)
    assert "hello" in collect(notebook.client, ran).text


def test_a_login_at_a_terminal_serves_the_cell_that_waits(
    notebook: Notebook, site: Engine, gate: Gate
) -> None:
    gate.terminal = True  # a host key: not for a cell to accept
    ran = notebook.client.execute("print('hello')")
    assert "Press Enter to try again" in notebook.prompt()["prompt"]
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    with KeeperClient(start=False) as terminal:
        terminal.on_event = asked.put
        threading.Thread(target=lambda: terminal.request("login", target="far")).start()
        number = 0
        for _ in range(2):  # its own login, and the link that is tried then
            question = asked.get(timeout=DEADLINE)
            while question["event"] != "question":
                question = asked.get(timeout=DEADLINE)
            assert (question["host"], question["hidden"]) == ("gate", True)
            number = int(question["number"])
            assert terminal.request("answer", number=number, text=CODE) == {"taken": True}
        assert "hello" in collect(notebook.client, ran).text
        assert terminal.request("answer", number=number, text=CODE) == {"taken": False}


@pytest.mark.parametrize("notebook", [False], indirect=True)
def test_a_running_cell_says_that_the_link_is_down_and_when_it_is_back(
    notebook: Notebook, site: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_notice, "SILENT_FOR", 0.3)
    assert "one" in run_cell(notebook.client, "print('one')").text
    waits = notebook.client.execute("int(input('?'))")
    notebook.prompt()
    gate.shut = "no route to the gate"
    gate.cut()
    shown = notebook.client.get_iopub_msg(timeout=DEADLINE)
    while shown["msg_type"] != "display_data":
        shown = notebook.client.get_iopub_msg(timeout=DEADLINE)
    text = shown["content"]["data"]["text/plain"]
    assert shown["parent_header"]["msg_id"] == waits
    assert "The link to far has been down since" in text
    meanwhile = notebook.client.execute("print('later')")
    gate.shut = ""
    notebook.client.input("2")
    while shown["msg_type"] != "update_display_data" or "was down from" not in str(shown["content"]):
        shown = notebook.client.get_iopub_msg(timeout=DEADLINE)
    assert "nothing was lost" in shown["content"]["data"]["text/plain"]
    assert "later" in collect(notebook.client, meanwhile).text


def told(notebook: Notebook, cells: list[str]) -> list[tuple[int, str, str]]:
    """What is published for these cells until the last of them is done: (which, kind of message, its text)."""
    found: list[tuple[int, str, str]] = []
    while (len(cells) - 1, "status", "idle") not in found:
        message = notebook.client.get_iopub_msg(timeout=DEADLINE)
        if (parent := message["parent_header"].get("msg_id")) in cells:
            content = message["content"]
            text = content.get("text") or content.get("execution_state") or content.get("data", {})
            found.append((cells.index(parent), message["msg_type"], str(text)))
    return found


@pytest.mark.parametrize("notebook", [False], indirect=True)
def test_what_a_cell_that_was_typed_meanwhile_says_goes_away_when_it_runs(
    notebook: Notebook, site: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_notice, "SILENT_FOR", 0.3)
    assert "one" in run_cell(notebook.client, "print('one')").text
    gate.shut = "no route to the gate"
    gate.cut()
    wait_until(lambda: site.client.request("status")["allocations"][0]["link"] != "up", "the cut to be seen")
    typed = [notebook.client.execute(f"print('typed {number}')") for number in range(3)]
    notebook.client.get_iopub_msg(timeout=DEADLINE)
    wait_until(lambda: gate.tries > 4, "some tries")
    gate.shut = ""
    found = told(notebook, typed)
    said = [text for cell, kind, text in found if cell == 0 and "display_data" in kind]
    assert all("[farkernel] The link to far has been down since" in text for text in said)
    assert any("no route to the gate; next try at" in text for text in said)
    assert any("no route to the gate; trying now" in text for text in said)
    kinds = [(cell, kind) for cell, kind, _ in found]
    cleared = kinds.index((0, "clear_output"))
    assert not any("display_data" in kind for _, kind in kinds[cleared:])
    assert [text for _, kind, text in found[cleared:] if kind == "stream"] == [
        f"typed {number}\n" for number in range(3)
    ]
    assert not any("display_data" in kind for cell, kind in kinds if cell)  # once is enough


def shown_in(notebook: Notebook, cell: str) -> None:
    """Wait for the first message about it."""
    while notebook.client.get_iopub_msg(timeout=DEADLINE)["parent_header"].get("msg_id") != cell:
        pass


@pytest.mark.parametrize("notebook", [False], indirect=True)
def test_a_typed_cell_can_be_interrupted_before_it_runs(notebook: Notebook, site: Engine, gate: Gate) -> None:
    assert "one" in run_cell(notebook.client, "print('one')").text
    gate.shut = "no route to the gate"
    gate.cut()
    wait_until(lambda: site.client.request("status")["allocations"][0]["link"] != "up", "the cut to be seen")
    typed = notebook.client.execute("import time; time.sleep(60)")
    shown_in(notebook, typed)  # so it has come; the interrupt takes another way
    behind = notebook.client.execute("print('behind it')")
    site.client.request("interrupt", kernel=notebook.kernel, timeout=2)
    gate.shut = ""
    assert "KeyboardInterrupt" in collect(notebook.client, typed).error
    # As anywhere: what was run behind a cell that failed is not run.
    assert collect(notebook.client, behind).reply["content"]["status"] == "aborted"


@pytest.mark.parametrize("notebook", [False], indirect=True)
def test_an_interrupt_while_the_link_is_down_does_not_wait_and_arrives(
    notebook: Notebook, site: Engine, gate: Gate
) -> None:
    assert "one" in run_cell(notebook.client, "print('one')").text
    runs = notebook.client.execute("import time; time.sleep(60)")
    shown_in(notebook, runs)
    gate.shut = "no route to the gate"
    gate.cut()
    wait_until(lambda: site.client.request("status")["allocations"][0]["link"] != "up", "the cut to be seen")
    site.client.request("interrupt", kernel=notebook.kernel, timeout=2)
    gate.shut = ""
    assert "KeyboardInterrupt" in collect(notebook.client, runs).error


CLEARS_UP = """
import time
time.sleep(1)
print("on", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(2)
    print("cleared up")
"""


@pytest.mark.parametrize("notebook", [False], indirect=True)
def test_a_cell_that_has_been_running_is_interrupted_once(
    notebook: Notebook, site: Engine, gate: Gate
) -> None:
    """However often its user asks for it while the link is down."""
    assert "one" in run_cell(notebook.client, "print('one')").text
    runs = notebook.client.execute(CLEARS_UP)
    while notebook.client.get_iopub_msg(timeout=DEADLINE)["content"].get("text") != "on\n":
        pass
    gate.shut = "no route to the gate"
    gate.cut()
    wait_until(lambda: site.client.request("status")["allocations"][0]["link"] != "up", "the cut to be seen")
    for _ in range(3):
        site.client.request("interrupt", kernel=notebook.kernel, timeout=2)
    gate.shut = ""
    outcome = collect(notebook.client, runs)
    assert outcome.reply["content"]["status"] == "ok"
    assert "cleared up" in outcome.text


def test_a_command_without_a_terminal_does_not_wait_for_a_person(site: Engine, gate: Gate) -> None:
    gate.asks = True
    with pytest.raises(RemoteError, match="nobody is here to answer") as caught:
        site.client.request("scan", target="far", timeout=20)
    assert "farkernel login" in caught.value.advice
