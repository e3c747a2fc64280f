"""The same menu entry from jupyter_server, `jupyter execute`, and a plain process that runs its argv."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from ..sites.engine import DEADLINE, Engine, collect, connected, outlives_patience, run_cell, wait_until
from ..sites.notebook_server import NotebookServer

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def entry(engine: Engine) -> None:
    engine.target("here", kernel="python3", keep="1m")
    engine.entry("here", "here")


def test_jupyter_server(engine: Engine, home: Path) -> None:
    with NotebookServer(home) as server:
        assert (
            server.rest("GET", "api/kernelspecs")["kernelspecs"]["here"]["spec"]["display_name"]
            == "here (Farkernel)"
        )
        with server.session("a.ipynb", "here") as session:
            outcome = session.run("x = 7; print(x * 6)")
            assert outcome.text == "42\n"
            assert outcome.states == ["busy", "idle"]
            cell = session.execute("import time\nprint('on', flush=True)\ntime.sleep(60)")
            while session.receive()["msg_type"] != "stream":
                pass
            server.rest("POST", f"api/kernels/{session.kernel}/interrupt")
            assert "KeyboardInterrupt" in session.collect(cell).error
            server.rest("POST", f"api/kernels/{session.kernel}/restart")
            assert "NameError" in session.run("x").error
            server.rest("DELETE", f"api/sessions/{session.id}")
        wait_until(lambda: not engine.far_processes(), "the kernel to end")
        (row,) = engine.kernels()
        assert row["reason"]["kind"] == "stopped"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_kernel_outlives_the_server_and_the_same_notebook_takes_it_up(
    engine: Engine, home: Path, end: str
) -> None:
    with NotebookServer(home) as server:
        with server.session("a.ipynb", "here") as session:
            session.run("x = 41")
        getattr(server, end)()
    (process,) = engine.far_processes()
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        taken_up = session.run("import os; print(x + 1, os.getpid())")
        assert (taken_up.text, taken_up.error) == (f"42 {process.pid}\n", "")
        server.rest("DELETE", f"api/sessions/{session.id}")
    wait_until(lambda: not engine.far_processes(), "the kernel to end")


def test_a_server_that_is_killed_before_it_says_what_it_means(engine: Engine, home: Path) -> None:
    """It has sent its request to end the kernel, as it does when it stops, and not its word that it is to live on."""
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.run("1")
        file = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"kernel-{session.kernel}.json"
        with connected(file) as client:
            client.shutdown()
            client.control_channel.send(client.session.msg("kernel_info_request"))
            assert client.get_control_msg(timeout=30)["msg_type"] == "kernel_info_reply"  # so the other came
            server.kill()
            wait_until(lambda: engine.kernels()[0]["fronts"] == 0, "the server to be missed")
            outlives_patience(client)


def test_keep_runs_out(engine: Engine, home: Path) -> None:
    engine.target("here", kernel="python3", keep="1s")
    with NotebookServer(home) as server, server.session("a.ipynb", "here") as session:
        session.run("1")
        server.kill()
    wait_until(lambda: not engine.far_processes(), "keep to run out")
    (row,) = wait_until(
        lambda: [row for row in engine.kernels() if row["state"] == "ended"],
        "the kernel to be listed as ended",
    )
    assert row["reason"]["kind"] == "keep"
    assert "keep" in row["reason"]["text"]


def test_jupyter_execute(engine: Engine, home: Path) -> None:
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('executed')")])
    node.metadata["kernelspec"] = {"name": "here", "display_name": "here", "language": "python"}
    nbformat.write(node, home / "a.ipynb")
    subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(home / "a.ipynb")],
        check=True,
        timeout=60,
    )
    assert nbformat.read(home / "a.ipynb", as_version=4).cells[0].outputs[0]["text"] == "executed\n"
    wait_until(lambda: not engine.far_processes(), "the kernel to end")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Launched:
    """The entry's argv, run as VS Code would: with a connection file that we made."""

    def __init__(self, engine: Engine, path: Path, curve: bool = False) -> None:
        self.file = str(path)
        public, secret = zmq.curve_keypair() if curve else (None, None)
        write_connection_file(self.file, key=b"a-key", curve_publickey=public, curve_secretkey=secret)
        spec = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / "here" / "kernel.json"
        argv = [part.replace("{connection_file}", self.file) for part in json.loads(spec.read_text())["argv"]]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, start_new_session=True)
        # A client without a manager takes a heartbeat that is silent for a second for death.
        port = json.loads(path.read_text())["hb_port"]
        wait_until(lambda: listens(port), "the endpoints to be bound")

    def finish(self) -> str:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            said = stderr.read().decode()
        self.process.wait(30)
        return said


@pytest.fixture(params=[False, True], ids=["plain", "curve"])
def launched(engine: Engine, home: Path, request: pytest.FixtureRequest) -> Iterator[Launched]:
    launched = Launched(engine, home / "connection.json", curve=request.param)
    yield launched
    if launched.process.poll() is None:
        launched.process.kill()
        launched.finish()


def test_argv(engine: Engine, launched: Launched) -> None:
    with connected(launched.file) as client:
        assert run_cell(client, "print('by argv')").text == "by argv\n"
        message = client.execute("import time\nprint('on', flush=True)\ntime.sleep(60)")
        while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
            pass
        launched.process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in collect(client, message).error
        assert launched.process.poll() is None
        client.execute("import os; os._exit(5)")
        assert "status 5" in launched.finish()
        assert launched.process.returncode == 5


def test_argv_terminated_leaves_the_kernel_for_keep(engine: Engine, launched: Launched) -> None:
    with connected(launched.file) as client:
        run_cell(client, "1")
    launched.process.terminate()
    launched.finish()
    assert len(engine.far_processes()) == 1


def test_argv_shut_down_by_its_client(engine: Engine, launched: Launched) -> None:
    with connected(launched.file) as client:
        run_cell(client, "1")
        began = time.monotonic()
        client.shutdown()
        launched.finish()
        assert time.monotonic() - began < 8
    assert launched.process.returncode == 0
    assert not engine.far_processes()


def test_without_the_curve_key_nobody_gets_in(engine: Engine, home: Path) -> None:
    launched = Launched(engine, home / "connection.json", curve=True)
    try:
        with connected(launched.file) as client:
            run_cell(client, "1")
            info = json.loads(Path(launched.file).read_text())
            context = zmq.Context()
            spy = context.socket(zmq.SUB)
            spy.linger = 0
            spy.subscribe(b"")
            spy.connect(f"tcp://127.0.0.1:{info['iopub_port']}")
            run_cell(client, "print('nobody reads this')")
            assert spy.poll(500) == 0
            spy.close()
            context.term()
    finally:
        launched.process.kill()
        launched.finish()


def test_a_client_that_comes_late_is_served(engine: Engine, home: Path) -> None:
    launched = Launched(engine, home / "connection.json")
    try:
        with connected(launched.file) as first:
            run_cell(first, "y = 1")
        client = BlockingKernelClient()
        client.load_connection_file(launched.file)
        client.start_channels()
        client.wait_for_ready(timeout=DEADLINE)
        assert run_cell(client, "print(y)").text == "1\n"
        client.stop_channels()
    finally:
        launched.process.kill()
        launched.finish()
