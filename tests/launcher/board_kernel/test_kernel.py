"""The kernel's messages, with a fake board behind it and jupyter_client before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from farkernel.launcher.board.errors import BoardBusy
from farkernel.launcher.board_kernel import context

from ...sites.engine import DEADLINE, collect, run_cell
from .fake_board import FakeBoard
from .site import KernelSite, kernel_site

Site = tuple[KernelSite, BlockingKernelClient]


@pytest.fixture
def site(home: Path) -> Iterator[Site]:
    with kernel_site(home) as both:
        yield both


def test_output_and_result(site: Site) -> None:
    outcome = run_cell(site[1], "print('héllo')\n6 * 7")
    assert outcome.text == "héllo\n"
    (result,) = [each for each in outcome.outputs if each["msg_type"] == "execute_result"]
    assert result["content"]["data"] == {"text/plain": "42"}
    assert result["content"]["execution_count"] == 1
    assert outcome.reply["content"]["status"] == "ok"
    assert outcome.states == ["busy", "idle"]


def test_kernel_info_has_board_and_firmware(site: Site) -> None:
    reply = site[1].kernel_info(reply=True, timeout=DEADLINE)["content"]
    assert reply["status"] == "ok"
    assert reply["language_info"]["name"] == "micropython"
    assert reply["language_info"]["version"] == "1.25.0"
    assert reply["language_info"]["file_extension"] == ".py"
    assert "fake board" in reply["banner"]
    assert reply["farkernel"]["board"]["state"] == "ready"


def test_a_traceback_is_an_error_with_the_cells_lines(site: Site) -> None:
    outcome = run_cell(site[1], "x = 1\n\ndef f():\n    return 1 / 0\nf()")
    content = outcome.reply["content"]
    assert (content["status"], content["ename"], content["evalue"]) == (
        "error",
        "ZeroDivisionError",
        "division by zero",
    )
    assert "    return 1 / 0" in outcome.error
    assert "    f()" in outcome.error


def test_an_error_aborts_what_was_sent_with_it(site: Site) -> None:
    client = site[1]
    first = client.execute("import time; time.sleep_ms(500); 1 / 0")  # the other is there by then
    second = client.execute("print('never')")
    assert collect(client, first).reply["content"]["status"] == "error"
    assert collect(client, second).reply["content"]["status"] == "aborted"
    assert run_cell(client, "print('again')").text == "again\n"


def test_input_is_asked_for_and_answered(site: Site) -> None:
    client = site[1]
    msg_id = client.execute("print('hello ' + input('Your name? '))", allow_stdin=True)
    request = client.get_stdin_msg(timeout=DEADLINE)
    assert request["content"] == {"prompt": "Your name? ", "password": False}
    client.input("Zoë\tB")
    assert collect(client, msg_id).text == "hello Zoë\tB\n"


def test_input_without_a_front_end_that_can_ask(site: Site) -> None:
    outcome = run_cell_without_stdin(site[1], "input('?')")
    assert outcome["ename"] == "EOFError"
    assert "takes no questions" in outcome["evalue"]


def run_cell_without_stdin(client: BlockingKernelClient, code: str) -> dict[str, str]:
    reply: dict[str, str] = collect(client, client.execute(code, allow_stdin=False)).reply["content"]
    return reply


def test_an_interrupt_ends_the_program(site: Site) -> None:
    client = site[1]
    msg_id = client.execute("print('begun')\nwhile True: pass")
    while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
        pass
    client.control_channel.send(client.session.msg("interrupt_request"))
    assert client.get_control_msg(timeout=DEADLINE)["msg_type"] == "interrupt_reply"
    assert collect(client, msg_id).reply["content"]["ename"] == "KeyboardInterrupt"


def test_shutdown_resets_the_board(site: Site) -> None:
    kernel, client = site
    before = kernel.board.resets
    client.shutdown(restart=True)
    assert client.get_control_msg(timeout=DEADLINE)["content"] == {"status": "ok", "restart": True}
    assert kernel.ended()
    assert kernel.board.resets == before + 1


def interrupt(client: BlockingKernelClient) -> None:
    client.control_channel.send(client.session.msg("interrupt_request"))
    assert client.get_control_msg(timeout=DEADLINE)["msg_type"] == "interrupt_reply"


def test_an_interrupt_ends_the_wait_for_a_board(home: Path) -> None:
    def away(board: FakeBoard) -> None:
        board.plugged = False

    with kernel_site(home, prepare=away) as (_, client):
        msg_id = client.execute("print('never')")
        while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
            pass
        interrupt(client)
        assert collect(client, msg_id).reply["content"]["ename"] == "KeyboardInterrupt"


def test_an_interrupt_ends_an_unanswered_question(site: Site) -> None:
    client = site[1]
    msg_id = client.execute("input('?')", allow_stdin=True)
    client.get_stdin_msg(timeout=DEADLINE)
    interrupt(client)
    assert collect(client, msg_id).reply["content"]["ename"] == "KeyboardInterrupt"


def test_silent_cells_and_user_expressions(site: Site) -> None:
    client = site[1]
    silent = collect(client, client.execute("x = 5\nx", silent=True))
    assert [each["msg_type"] for each in silent.outputs] == []
    msg_id = client.execute("y = 'a'", user_expressions={"good": "x + 1", "bad": "nothing"})
    reply = collect(client, msg_id).reply["content"]
    assert reply["execution_count"] == 1
    assert reply["user_expressions"]["good"]["data"] == {"text/plain": "6"}
    assert reply["user_expressions"]["bad"]["ename"] == "NameError"


def test_completion_and_help_ask_the_live_board(site: Site) -> None:
    client = site[1]
    run_cell(client, "def blink(times=3):\n    '''Blinks.'''\n    return times\nblue = 'x'")
    names = client.complete("bl", reply=True, timeout=DEADLINE)["content"]
    assert (names["matches"], names["cursor_start"], names["cursor_end"]) == (["blink", "blue"], 0, 2)
    assert "upper" in client.complete("blue.up", reply=True, timeout=DEADLINE)["content"]["matches"]
    assert client.complete("import mach", reply=True, timeout=DEADLINE)["content"]["matches"] == ["machine"]
    assert "%connect" in client.complete("%con", reply=True, timeout=DEADLINE)["content"]["matches"]
    page = client.inspect("blink", 3, reply=True, timeout=DEADLINE)["content"]
    assert page["found"]
    assert page["data"]["text/plain"].startswith("blink(times=3)\nType:   <class 'function'>")
    assert "Blinks." in page["data"]["text/plain"]
    detail = client.inspect("blink(", 6, detail_level=1, reply=True, timeout=DEADLINE)["content"]
    assert "    return times" in detail["data"]["text/plain"]
    assert not client.inspect("nothing_at_all", 3, reply=True, timeout=DEADLINE)["content"]["found"]


def test_a_board_that_somebody_else_has(home: Path) -> None:
    def held(board: FakeBoard) -> None:
        board.connect_error = BoardBusy("/dev/fake", "the notebook a.ipynb (process 7)")

    with kernel_site(home, prepare=held) as (site, client):
        refused = run_cell(client, "1 + 1")
        assert refused.reply["content"]["ename"] == "BoardBusy"
        assert "is in use by the notebook a.ipynb (process 7)" in refused.error
        site.board.connect_error = None
        assert run_cell(client, "1 + 1").reply["content"]["status"] == "ok"


def test_a_board_that_does_not_react(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_INTERRUPT_PATIENCE", 0.2)
    kernel, client = site
    kernel.board.deaf = True
    msg_id = client.execute("print('begun')\nwhile True: pass")
    while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
        pass
    interrupt(client)
    while "does not react" not in client.get_iopub_msg(timeout=DEADLINE)["content"].get("text", ""):
        pass
    interrupt(client)
    assert collect(client, msg_id).reply["content"]["ename"] == "KeyboardInterrupt"
    assert run_cell(client, "1").reply["content"]["status"] == "ok"


def test_a_fault_of_ours_does_not_leave_the_cell_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(site[0].kernel.runner, "run", broken)
    outcome = run_cell(site[1], "1")
    assert outcome.reply["content"]["ename"] == "ZeroDivisionError"
    assert "This is a fault in Farkernel" in outcome.error
