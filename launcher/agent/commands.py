"""A command whose stdin and stdout are a stream channel of the link (docs/architecture.md §4, `run`)."""

import os
import signal
import socket
import sys
from typing import Any, Callable, Dict, List, Mapping, Union

from .frames import Buffer
from .link import ChannelError, Link, Priority
from .ports import Address, Port, Ports
from .problems import BadRequest, NoProgram, Problem
from .reasons import clean
from .specs import NOTHING, complete_environment, find_program

#: Of its stderr, from the end.
_SAID = 4096
_LOOK_AGAIN = 0.1
#: Stands for the agent's own interpreter.
PYTHON = "{python}"


class NoCommand(Problem):
    kind = "no-command"

    def __init__(self, name: str) -> None:
        super().__init__("there is no %s there" % name, "Install it there, or say where it is by PATH")


class Command(Port):
    """One process.  What it left on stderr, and how it ended, is told when it has ended."""

    def __init__(
        self,
        ports: Ports,
        link: Link,
        channel: int,
        argv: List[str],
        done: Callable[[Union[str, Problem]], None],
    ) -> None:
        super().__init__(ports, link, channel, [Address(socket.AF_UNIX, None, argv[0])], done)
        self._timer.cancel()
        self._said = b""
        self._told = False
        self._deaf = False
        import subprocess

        ours, theirs = socket.socketpair()
        try:
            environment = complete_environment(os.environ, NOTHING, {}, [])
            home = os.path.expanduser("~")
            self._child = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                cwd=home if os.path.isdir(home) else "/",
                env=environment,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._child.stderr is not None
        self._stderr = self._child.stderr
        os.set_blocking(self._stderr.fileno(), False)
        self._loop.watch(self._stderr.fileno(), self._stderr_readable)
        ours.setblocking(False)
        self._socket = ours

    def __repr__(self) -> str:
        return "<Command channel %d, process %d>" % (self.channel, self._child.pid)

    def start(self) -> None:
        self._established()

    def _stderr_readable(self) -> None:
        try:
            data = os.read(self._stderr.fileno(), 65536)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-_SAID:]
        if not data:
            self._loop.forget(self._stderr.fileno())
            self._stderr.close()
            self._look_whether_ended()

    def _look_whether_ended(self) -> None:
        status = self._child.poll()
        if status is None:
            self._loop.later(_LOOK_AGAIN, self._look_whether_ended)
        elif not self._told:
            self._told = True
            said = clean(self._said.decode("utf-8", "replace"))
            self._ports.tell({"event": "ran", "channel": self.channel, "status": status, "said": said})
            self._ports.pump()

    def _read_failed(self) -> None:
        """It ended without having read all that it was given (ECONNRESET): the end, like any other."""
        self._reading = False
        self._end_near()
        self._watch()
        self._ports.pump()

    def _write_failed(self) -> None:
        """It reads no more; what it says, maybe why, is still to come."""
        left = sum(len(piece) for piece in self._unwritten)
        self._unwritten.clear()
        self._deaf = True
        self._consumed(left)
        self._watch()
        self._look_whether_over()

    def received(self, data: Buffer) -> None:
        if self._deaf:
            self._consumed(len(data))
        else:
            super().received(data)

    def abort(self, tell: bool) -> None:
        self._kill()
        super().abort(tell)

    def abandon(self) -> None:
        self._told = True  # the session in which the channel was named is over
        self._kill()
        super().abandon()

    def _kill(self) -> None:
        if self._child.poll() is None:
            try:
                os.killpg(self._child.pid, signal.SIGTERM)
            except OSError:
                pass  # it has ended by itself


def run(
    ports: Ports, link: Link, request: Mapping[str, Any], done: Callable[[Union[str, Problem]], None]
) -> None:
    """Raises `BadRequest` and `NoCommand`, and then the channel was not opened."""
    channel, argv = int(request["channel"]), request.get("argv")
    if (
        not isinstance(argv, list)
        or not argv
        or not all(isinstance(one, str) and "\0" not in one for one in argv)
    ):
        raise BadRequest("argv must be a list of strings")
    argv = [sys.executable] + argv[1:] if argv[0] == PYTHON else argv
    environment: Dict[str, str] = complete_environment(os.environ, NOTHING, {}, [])
    try:
        argv[0] = find_program(argv, environment, os.path.expanduser("~"))
    except NoProgram:
        raise NoCommand(argv[0]) from None
    try:
        link.open(channel, Priority.PORT, True)
    except ChannelError as error:
        raise BadRequest(str(error)) from None
    try:
        command = Command(ports, link, channel, argv, done)
    except OSError as error:
        link.close(channel)
        done(Problem("%s could not be started there: %s" % (argv[0], error.strerror), ""))
        return
    ports.add(command)
    command.start()
