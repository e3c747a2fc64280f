"""Ports of the far end on this machine: a real HTTP server there, real connections here."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import queue
import random
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import psutil
import pytest
from jupyter_client.manager import KernelManager

from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.engine import DEADLINE, Engine, wait_until
from .test_killed import kill_keeper, kill_worker

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

SIZE = 50 * 1024 * 1024


class Echo(http.server.BaseHTTPRequestHandler):
    """Gives back what it gets."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[int]:
    """An HTTP server at the far end; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def kernel(engine: Engine) -> Iterator[str]:
    engine.fake_kernel()
    engine.target("here", kernel="fake")
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    wait_until(lambda: engine.kernels()[0]["state"] == "live", "the kernel")
    yield engine.kernels()[0]["kernel"]
    manager.shutdown_kernel(now=True)


class Forwarding:
    """`farkernel forward` in the foreground."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "farkernel", "forward", *arguments, "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.complaints: queue.SimpleQueue[str] = queue.SimpleQueue()
        text = ""
        while not text.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            text += line
        self.about = json.loads(text)
        self.local = int(self.about["local"])
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.complaints.put(line)

    def post(self, body: bytes) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.local}/", data=body)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            content: bytes = answer.read()
        return content

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        status = self.process.wait(DEADLINE)
        self._listener.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextlib.contextmanager
def forwarding(*arguments: str) -> Iterator[Forwarding]:
    one = Forwarding(*arguments)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.end()


def test_large_bodies_and_many_connections(kernel: str, server: int) -> None:
    with forwarding(kernel, str(server)) as forward:
        jsonschema.validate(forward.about, SCHEMAS["forward"])
        assert forward.local != server  # taken: by the server itself
        body = random.Random(1).randbytes(SIZE)
        assert hashlib.sha256(forward.post(body)).digest() == hashlib.sha256(body).digest()
        answers: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=lambda n=n: answers.put((n, forward.post(str(n).encode() * 5000))))
            for n in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        found = dict(answers.get(timeout=DEADLINE) for _ in threads)
        assert found == {n: str(n).encode() * 5000 for n in range(30)}
        assert listeners(forward.local)
        assert forward.end() == 130
    assert not listeners(forward.local)


def listeners(port: int) -> list[psutil.Process]:
    """Processes of this test that listen there: another test may have got the port by now."""
    pids = {
        each.pid
        for each in psutil.net_connections("tcp4")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port and each.pid
    }
    mine = os.environ["FARKERNEL_RUN_DIR"]
    return [one for one in map(psutil.Process, pids) if one.environ().get("FARKERNEL_RUN_DIR") == mine]


def test_each_half_ends_by_itself(kernel: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        forwarding(kernel, str(listener.getsockname()[1])) as forward,
        socket.create_connection(("127.0.0.1", forward.local), DEADLINE) as near,
    ):
        far, _ = listener.accept()
        with far:
            far.settimeout(DEADLINE)
            near.sendall(b"question")
            near.shutdown(socket.SHUT_WR)
            assert far.makefile("rb").read() == b"question"
            far.sendall(b"answer")
        assert near.makefile("rb").read() == b"answer"


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_cut_is_passed_on_as_a_cut(kernel: str, side: str) -> None:
    """So that half an answer does not look like a whole one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        forwarding(kernel, str(listener.getsockname()[1])) as forward,
    ):
        near = socket.create_connection(("127.0.0.1", forward.local), DEADLINE)
        far, _ = listener.accept()
        far.settimeout(DEADLINE)
        with near, far:
            near.sendall(b"1")
            assert far.recv(1) == b"1"
            cut, other = (near, far) if side == "near" else (far, near)
            cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            cut.close()
            with pytest.raises(ConnectionResetError):
                other.recv(1)


def test_who_does_not_read_holds_up_nobody_else(kernel: str, server: int) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        forwarding(kernel, str(listener.getsockname()[1])) as stuck,
        forwarding(kernel, str(server)) as forward,
        socket.create_connection(("127.0.0.1", stuck.local), DEADLINE) as near,
    ):
        far, _ = listener.accept()
        with far:
            far.setblocking(False)
            sent = 0
            while select.select([], [far], [], 1.0)[1]:
                sent += far.send(bytes(1 << 16))
                assert sent < 64 << 20  # somebody would hold all that in memory
            assert forward.post(b"x" * 1_000_000) == b"x" * 1_000_000
            got = 0
            while got < sent:
                got += len(near.recv(1 << 20))
            assert got == sent


def test_refused(kernel: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with forwarding(kernel, str(unused.getsockname()[1])) as forward:
            with pytest.raises((urllib.error.URLError, ConnectionError)):
                forward.post(b"")
            assert "Connection refused. Is the program that listens on it running?" in forward.complaints.get(
                timeout=DEADLINE
            )


def test_ipv6(kernel: str) -> None:
    class Server6(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    with Server6(("::1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with forwarding(kernel, str(server.server_address[1])) as forward:
            # Free on 127.0.0.1, but what the agent would reach there first is the forward itself.
            assert forward.local != server.server_address[1]
            assert forward.post(b"six") == b"six"
        server.shutdown()


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server whose address is a path."""

    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("unix", 0)  # the handler wants a host


def test_a_unix_socket(kernel: str, home: Path) -> None:
    path = str(home / "a socket")
    with UnixServer(path, Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with forwarding(kernel, path) as forward:
            assert forward.about["port"] is None
            assert forward.about["path"] == path
            body = random.Random(1).randbytes(1 << 20)
            assert forward.post(body) == body
        server.shutdown()


def test_a_unix_socket_where_nobody_listens(kernel: str, home: Path) -> None:
    with forwarding(kernel, str(home / "nowhere")) as forward:
        with contextlib.suppress(OSError):
            forward.post(b"x")
        assert str(home / "nowhere") in forward.complaints.get(timeout=DEADLINE)


def test_a_relative_path_is_refused(kernel: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "farkernel", "forward", kernel, "a/socket"],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert ended.returncode == 2
    assert "neither a port (1 to 65535) nor the absolute path of a socket" in ended.stderr


def test_a_taken_port(kernel: str, server: int) -> None:
    command = [sys.executable, "-P", "-m", "farkernel", "forward", kernel, "8787", "--local", str(server)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert ended.returncode == 1
    assert "cannot be listened on" in ended.stderr


def test_to_itself(kernel: str) -> None:
    command = [sys.executable, "-P", "-m", "farkernel", "forward", kernel, "8787", "--local", "8787"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert ended.returncode == 1
    assert "would be forwarded to itself" in ended.stderr


def test_a_killed_agent_cuts_connections_and_new_ones_work(engine: Engine, kernel: str, server: int) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        forwarding(kernel, str(listener.getsockname()[1])) as stream,
        forwarding(kernel, str(server)) as forward,
    ):
        with socket.create_connection(("127.0.0.1", stream.local), DEADLINE) as near:
            far, _ = listener.accept()
            with far:
                near.sendall(b"1")
                far.settimeout(DEADLINE)
                assert far.recv(1) == b"1"
                kill_worker(engine)
                with pytest.raises(ConnectionResetError):
                    near.recv(1)
        assert forward.post(b"again") == b"again"


def test_a_killed_keeper_opens_the_same_port_again(engine: Engine, kernel: str, server: int) -> None:
    with forwarding(kernel, str(server)) as forward:
        assert forward.post(b"before") == b"before"
        kill_keeper(engine)

        def answers() -> bool:
            try:
                return forward.post(b"after") == b"after"
            except (OSError, urllib.error.URLError):
                return False

        wait_until(answers, "the port to be open again")


def test_it_ends_with_the_kernel(engine: Engine, kernel: str, server: int, home: Path) -> None:
    with forwarding(kernel, str(server)) as forward:
        subprocess.run(
            [sys.executable, "-P", "-m", "farkernel", "stop", kernel], check=True, timeout=DEADLINE
        )
        assert forward.ended() == 1
        assert "has ended" in forward.complaints.get(timeout=DEADLINE)
    assert os.listdir(home)
