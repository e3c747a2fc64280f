"""What notebooks ask of a kernel beside running cells: debugger, comms, subshells, completion, images, floods."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..sites.engine import DEADLINE, Engine, collect, connected, run_cell

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def manager(engine: Engine) -> Iterator[KernelManager]:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


@pytest.fixture
def client(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    with connected(manager.connection_file) as client:
        yield client


def send(
    client: BlockingKernelClient, channel: str, msg_type: str, content: dict[str, Any], **more: Any
) -> str:
    """One request of any kind; returns its id.  `subshell_id` goes into the header, `buffers` behind it."""
    buffers = more.pop("buffers", None)
    message = client.session.msg(msg_type, content)
    message["header"].update(more)
    socket = getattr(client, f"{channel}_channel").socket
    client.session.send(socket, message, buffers=buffers)
    return str(message["header"]["msg_id"])


def answer(client: BlockingKernelClient, channel: str, msg_id: str) -> dict[str, Any]:
    """The content of the reply to a request, whatever else comes first."""
    return answers(client, channel, {msg_id})[msg_id]


def answers(client: BlockingKernelClient, channel: str, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The contents of the replies to several requests, in whatever order they come."""
    end = time.monotonic() + DEADLINE
    get = client.get_control_msg if channel == "control" else client.get_shell_msg
    found: dict[str, dict[str, Any]] = {}
    while found.keys() < wanted:
        message = get(timeout=max(0.0, end - time.monotonic()))
        if (parent := message["parent_header"].get("msg_id")) in wanted:
            found[parent] = message["content"]
    return found


def ask(client: BlockingKernelClient, channel: str, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
    reply = answer(client, channel, send(client, channel, msg_type, content))
    assert reply.get("status", "ok") == "ok", reply
    return reply


def published(client: BlockingKernelClient, msg_type: str) -> dict[str, Any]:
    """The next message of this kind on iopub."""
    end = time.monotonic() + DEADLINE
    while True:
        message: dict[str, Any] = client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
        if message["msg_type"] == msg_type:
            return message


class Debugger:
    """Speaks the debug adapter protocol as JupyterLab's sidebar does: on control, events on iopub."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self._seq = 0

    def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._seq += 1
        request = {"seq": self._seq, "type": "request", "command": command, "arguments": arguments}
        reply = ask(self._client, "control", "debug_request", request)
        assert reply["success"], reply
        body: dict[str, Any] = reply.get("body") or {}
        return body

    def event(self, name: str) -> dict[str, Any]:
        while (event := published(self._client, "debug_event")["content"])["event"] != name:
            pass
        body: dict[str, Any] = event.get("body") or {}
        return body


def test_debugger(client: BlockingKernelClient) -> None:
    info = ask(client, "shell", "kernel_info_request", {})
    assert {"debugger", "kernel subshells"} <= set(info["supported_features"])
    debug = Debugger(client)
    assert not debug("debugInfo")["isStarted"]
    debug("initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True)
    debug("attach")
    code = "def double(number):\n    answer = number * 2\n    return answer\nprint(double(21))"
    path = debug("dumpCell", code=code)["sourcePath"]
    points = debug("setBreakpoints", source={"path": path}, breakpoints=[{"line": 3}], sourceModified=False)
    assert points["breakpoints"][0]["verified"]
    debug("configurationDone")

    cell = client.execute(code)
    thread = debug.event("stopped")["threadId"]
    frame = debug("stackTrace", threadId=thread)["stackFrames"][0]
    assert (frame["name"], frame["line"]) == ("double", 3)
    scope = debug("scopes", frameId=frame["id"])["scopes"][0]["variablesReference"]
    found = {
        each["name"]: each["value"] for each in debug("variables", variablesReference=scope)["variables"]
    }
    assert (found["number"], found["answer"]) == ("21", "42")
    debug("continue", threadId=thread)
    assert collect(client, cell).text == "42\n"
    debug("disconnect", restart=False, terminateDebuggee=True)
    assert run_cell(client, "print('on')").text == "on\n"


def test_widgets(client: BlockingKernelClient) -> None:
    """A slider's model goes to the page, what the page moves comes back; the kernel's callback runs."""
    cell = client.execute("import ipywidgets\nslider = ipywidgets.IntSlider(value=7)\ndisplay(slider)")
    opened = {}
    while (message := client.get_iopub_msg(timeout=DEADLINE))["msg_type"] != "display_data":
        if message["msg_type"] == "comm_open":
            state = message["content"]["data"]["state"]
            opened[state["_model_name"]] = message
    view = message["content"]["data"]["application/vnd.jupyter.widget-view+json"]
    assert collect(client, cell).reply["content"]["status"] == "ok"
    slider = opened["IntSliderModel"]
    assert slider["content"]["target_name"] == "jupyter.widget"
    assert slider["content"]["comm_id"] == view["model_id"]
    assert slider["content"]["data"]["state"]["value"] == 7

    run_cell(client, "slider.observe(lambda change: print('moved', change.old, change.new), 'value')")
    data = {"method": "update", "state": {"value": 42}, "buffer_paths": []}
    moved = send(client, "shell", "comm_msg", {"comm_id": view["model_id"], "data": data})
    while (message := published(client, "stream"))["parent_header"]["msg_id"] != moved:
        pass
    assert message["content"]["text"] == "moved 7 42\n"
    assert run_cell(client, "print(slider.value)").text == "42\n"


def test_comms_with_buffers_both_ways(client: BlockingKernelClient) -> None:
    run_cell(
        client,
        """
def opened(comm, message):
    @comm.on_msg
    def answer(message):
        comm.send({"sizes": [len(each) for each in message["buffers"]]}, buffers=[bytes(each)[::-1] for each in message["buffers"]])
get_ipython().kernel.comm_manager.register_target("reverse", opened)
""",
    )
    send(client, "shell", "comm_open", {"comm_id": "c1", "target_name": "reverse", "data": {}})
    buffers = [bytes(range(256)) * 4096, b"", b"\x00\xffone"]
    asked = send(client, "shell", "comm_msg", {"comm_id": "c1", "data": {}}, buffers=buffers)
    back = published(client, "comm_msg")
    assert back["parent_header"]["msg_id"] == asked
    assert back["content"] == {"comm_id": "c1", "data": {"sizes": [1 << 20, 0, 5]}}
    assert [bytes(each) for each in back["buffers"]] == [each[::-1] for each in buffers]


def test_a_subshell_answers_while_the_main_shell_is_busy(client: BlockingKernelClient) -> None:
    subshell = ask(client, "control", "create_subshell_request", {})["subshell_id"]
    assert ask(client, "control", "list_subshell_request", {})["subshell_id"] == [subshell]
    busy = client.execute(
        "import threading\ngo = threading.Event()\nprint('busy', flush=True)\nprint(go.wait(60))"
    )
    assert published(client, "stream")["content"]["text"] == "busy\n"

    content = {
        "code": "print('beside'); go.set()",
        "silent": False,
        "store_history": False,
        "allow_stdin": False,
    }
    beside = send(client, "shell", "execute_request", content, subshell_id=subshell)
    assert collect_both(client, {busy, beside}) == {beside: "beside\n", busy: "True\n"}
    replies = answers(client, "shell", {busy, beside})
    assert [reply["status"] for reply in replies.values()] == ["ok", "ok"]
    ask(client, "control", "delete_subshell_request", {"subshell_id": subshell})
    assert ask(client, "control", "list_subshell_request", {})["subshell_id"] == []


def collect_both(client: BlockingKernelClient, cells: set[str]) -> dict[str, str]:
    """What each cell prints until all are idle."""
    said = dict.fromkeys(cells, "")
    running = set(cells)
    while running:
        message = client.get_iopub_msg(timeout=DEADLINE)
        parent, content = message["parent_header"].get("msg_id"), message["content"]
        if message["msg_type"] == "stream":
            said[parent] += content["text"]
        elif content.get("execution_state") == "idle":
            running.discard(parent)
    return said


def test_completion_inspection_and_history(client: BlockingKernelClient) -> None:
    run_cell(client, "def farewell(name):\n    'Say goodbye.'")
    completed = ask(client, "shell", "complete_request", {"code": "1 + farew", "cursor_pos": 9})
    assert completed["matches"] == ["farewell"]
    assert (completed["cursor_start"], completed["cursor_end"]) == (4, 9)
    content = {"code": "farewell", "cursor_pos": 8, "detail_level": 0}
    inspected = ask(client, "shell", "inspect_request", content)
    assert "Say goodbye." in inspected["data"]["text/plain"]
    content = {"hist_access_type": "tail", "n": 1, "raw": True, "output": False}
    history = ask(client, "shell", "history_request", content)["history"]
    assert history[-1][2].startswith("def farewell")


def test_an_image(client: BlockingKernelClient) -> None:
    """What `%matplotlib inline` sends, without matplotlib: a PNG as display data."""
    code = """
import base64, struct, zlib
from IPython.display import Image, display
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\\0" + bytes([x % 256, y % 256, 99]) * 300 for y in range(200) for x in [y])
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 200, 8, 2, 0, 0, 0))
display(Image(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")))
"""
    import base64

    (image,) = [each for each in run_cell(client, code).outputs if each["msg_type"] == "display_data"]
    png = base64.b64decode(image["content"]["data"]["image/png"])
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    assert struct.unpack(">II", png[16:24]) == (300, 200)


def test_ten_thousand_lines_reach_two_clients(manager: KernelManager, client: BlockingKernelClient) -> None:
    with connected(manager.connection_file) as other:
        cell = client.execute("for number in range(10_000): print('line', number, flush=True)")
        wanted = "".join(f"line {number}\n" for number in range(10_000))
        assert collect(client, cell, deadline=60).text == wanted
        assert collect_both(other, {cell})[cell] == wanted
