"""The worker: one thread that moves bytes between kernels, tapes and the link, and does what the keeper asks."""

import json
import os
import shutil
import signal
import socket
import stat
import struct
from typing import Dict, List, Optional, Set

from . import guard, records
from .frames import open_hello
from .guard import Held
from .kernels import RECORD, Event, Holder, Kernel, State
from .link import Bye, ChannelClosed, Connected, Link, LinkViolation, Message, Role, StreamData
from .log import Log
from .loop import Loop, Timer
from .places import subdirectory
from .requests import Requests
from .spawn import LAUNCH, process_record
from .visitor import Handover, Visitor

LOCK, LISTENER = "lock", "listener"
IDLE = 60.0
_ENDING = 5.0
_UID = struct.Struct("3i")


class GuardNeeded(Exception):
    """Raised in a child that the worker forked: unwind, so that nothing of the worker is kept, and be the guard."""

    def __init__(self, channel: socket.socket, held: Held) -> None:
        super().__init__()
        self.channel = channel
        self.held = held


class Worker(Holder):
    """`run` returns when the agent ends, and raises `GuardNeeded` in the child that is to be another guard."""

    def __init__(
        self, directory: str, channel: socket.socket, held: Held, children: List[int], log: Log
    ) -> None:
        self.directory = directory
        self.log = log
        self.loop = Loop(log)
        self.kernels: Dict[str, Kernel] = {}
        self.visitor: Optional[Visitor] = None
        self.channel_kernels: Dict[int, Kernel] = {}
        self._channel = channel
        #: Names of what the guard holds, with our own descriptors; those who use them close them.
        self._held = held.descriptors
        self._children = set(children)
        self._hungry: Set[Kernel] = set()
        self._feeding = False
        self._idle: Optional[Timer] = None
        self._idle_after = float(os.environ.get("FARKERNEL_AGENT_IDLE", IDLE))
        self._listener = socket.socket(fileno=os.dup(self._held[LISTENER]))
        self._replace_guard = False
        self._ended = False
        self._requests = Requests(self)

    def __repr__(self) -> str:
        return "<Worker of %s, %d kernels, %r>" % (self.directory, len(self.kernels), self.visitor)

    # -- life ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._watch_signals()
        self._listener.setblocking(False)
        self.loop.watch(self._listener.fileno(), self._accept)
        self.loop.watch(self._channel.fileno(), self._guard_says)
        self._adopt_all()
        self._look_whether_idle()
        while not self._ended:
            self.loop.run()
            if self._replace_guard:
                self._make_guard()
        guard.send(self._channel, {"end": True}, [])

    def _watch_signals(self) -> None:
        wake, its_wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(its_wake, False)
        signal.signal(signal.SIGTERM, lambda signum, frame: None)
        signal.set_wakeup_fd(its_wake)

        def terminated() -> None:
            os.read(wake, 512)
            # The system goes down, or the job's time is up: kernels were told so themselves, and this is the time
            # to pass on what they still have to say.
            self.log("asked to terminate")
            self._idle_after = 0.0
            self._look_whether_idle()
            self.loop.later(_ENDING, self.end)

        self.loop.watch(wake, terminated)

    def _adopt_all(self) -> None:
        place = subdirectory(self.directory, "k")
        for name in sorted(os.listdir(place)):
            directory = os.path.join(place, name)
            facts = records.read(os.path.join(directory, RECORD))
            if facts is None:
                continue  # begun by somebody who died before it mattered, or not ours
            try:
                kernel = Kernel(self, self.loop, self.log, directory, facts)
                self.kernels[kernel.id] = kernel
                kernel.adopt(self._held, self._children.__contains__)
                kernel.count_keep()
            except (OSError, ValueError, KeyError, TypeError):
                self.log.failure("taking up %s" % directory)

    def _look_whether_idle(self) -> None:
        busy = any(kernel.state is not State.ENDED for kernel in self.kernels.values())
        if busy or (self.visitor is not None and self.visitor.is_connected):
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
        elif self._idle is None:
            self._idle = self.loop.later(self._idle_after, self.end)

    def end(self) -> None:
        """Kernels that still run are left alone: the next agent takes them up."""
        self.log("the agent ends")
        if self.visitor is not None:
            self.visitor.leave("the agent has ended")
        try:
            os.unlink(os.path.join(self.directory, "socket"))
        except FileNotFoundError:
            pass
        if not self.kernels:
            # The lock is still ours.  A loader that is in there just now finds nothing, and its keeper tries again.
            shutil.rmtree(self.directory, ignore_errors=True)
        self._ended = True
        self.loop.stop()

    # -- the guard ----------------------------------------------------------------------------------------------

    def hold(self, names: List[str], descriptors: List[int]) -> None:
        self._held.update(zip(names, descriptors))
        self._tell_guard({"hold": names}, descriptors)

    def let_go(self, prefix: str) -> None:
        for name in [name for name in self._held if name.startswith(prefix)]:
            del self._held[name]
        self._tell_guard({"drop": prefix}, [])

    def spawn(self, kernel: Kernel) -> None:
        """The launch record is on the disk."""
        self._tell_guard({"spawn": kernel.directory, "life": kernel.life}, [])

    def _tell_guard(self, message: Event, descriptors: List[int]) -> None:
        try:
            guard.send(self._channel, message, descriptors)
        except OSError:
            self._guard_lost()

    def _guard_says(self) -> None:
        message, descriptors = guard.receive(self._channel)
        if message is None:
            self._guard_lost()
            return
        for kernel in list(self.kernels.values()):
            if message.get("life") != kernel.life:
                continue
            if message.get("spawned") == kernel.directory:
                self._children.add(message["pid"])
                self._held[guard.output_name(kernel.directory)] = descriptors[0]
                kernel.spawned(message["pid"], message["start"], descriptors[0])
            elif message.get("refused") == kernel.directory:
                kernel.refused(str(message["what"]))
            elif message.get("exited") == kernel.directory:
                kernel.exited(message["status"])
        self.pump()

    def _guard_lost(self) -> None:
        """Not here and now, where descriptors may be between two owners, but when the present callback is done."""
        if not self._replace_guard:
            self._replace_guard = True
            self.loop.stop()

    def _make_guard(self) -> None:
        self.log("the guard died; another takes its place")
        self._replace_guard = False
        self.loop.forget(self._channel.fileno())
        self._channel.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            signal.set_wakeup_fd(-1)
            held = Held()
            # Copies: our own are closed by their owners while the stack unwinds.
            held.descriptors = {name: os.dup(descriptor) for name, descriptor in self._held.items()}
            ours.close()
            raise GuardNeeded(theirs, held)
        theirs.close()
        self._channel = ours
        self.loop.watch(ours.fileno(), self._guard_says)
        self._children.clear()
        for kernel in list(self.kernels.values()):
            self._orphaned(kernel)

    def _orphaned(self, kernel: Kernel) -> None:
        kernel.orphaned()
        if kernel.state is State.STARTING and not kernel.pid:
            if os.path.exists(os.path.join(kernel.directory, LAUNCH)):
                self.spawn(kernel)
                return
            process = records.read(process_record(kernel.directory, kernel.life))
            if process is not None:
                # It runs, but the reading end of its output died with the guard.
                os.kill(int(process["pid"]), signal.SIGKILL)
            kernel.refused("the agent was disturbed at that moment")

    # -- keepers ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            loader, _ = self._listener.accept()
        except OSError:
            return  # it went away again, or there are no descriptors left for now
        credentials = loader.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UID.size)
        if _UID.unpack(credentials)[1] not in (os.geteuid(), 0):
            loader.close()
            return
        Handover(self.loop, self.log, loader, self._handed_over)

    def _handed_over(self, handover: Handover) -> None:
        try:
            hello = open_hello(handover.hello)
        except LinkViolation as violation:
            self.log("a HELLO that makes no sense: %s" % violation)
            handover.refuse()
            return
        visitor = self.visitor
        if visitor is None or visitor.link.session != hello["session"]:
            self._displace(hello["about"])
            about = {"pid": os.getpid(), "host": os.uname()[1]}
            link = Link(Role.AGENT, hello["session"], about)
            visitor = Visitor(self.loop, self.log, link, self._event, self._pumped, self._gone)
            self.visitor = visitor
        visitor.connect(handover)
        for kernel in self.kernels.values():
            kernel.stop_keep_while_attached()
        self._look_whether_idle()

    def _displace(self, about: Event) -> None:
        former, self.visitor = self.visitor, None
        if former is None:
            return
        who = " of %s on %s" % (about["user"], about.get("host", "?")) if about.get("user") else ""
        self.log("another keeper%s takes over" % who)
        self._forget_link()
        former.leave("another keeper%s has taken over" % who)

    def _forget_link(self) -> None:
        self.channel_kernels.clear()
        self._requests.forget_link()
        self._hungry.clear()
        for kernel in self.kernels.values():
            if kernel.feeds:
                kernel.detach(None)

    def _gone(self, visitor: Visitor, for_good: bool) -> None:
        if visitor is not self.visitor:
            return
        if for_good:
            self.visitor = None
            self._forget_link()
        for kernel in self.kernels.values():
            if kernel.feeds:
                kernel.count_keep()
        self._look_whether_idle()

    def _event(self, event: object) -> None:
        visitor = self.visitor
        if visitor is None:
            return
        if isinstance(event, Message):
            if event.channel == 0:
                visitor.link.consumed(0, len(event.data))
                self._requests.take(bytes(event.data))
            elif event.channel in self.channel_kernels:
                self._requests.to_kernel(self.channel_kernels[event.channel], event.channel, event.data)
            else:
                visitor.link.consumed(event.channel, len(event.data))
        elif isinstance(event, ChannelClosed):
            kernel = self.channel_kernels.pop(event.channel, None)
            if kernel is not None:
                kernel.detach_one(event.channel)
            else:
                self._requests.channel_closed(event.channel)
        elif isinstance(event, StreamData):
            self._requests.from_stream(event.channel, event.data)
        elif isinstance(event, Connected) and not event.resumed:
            self._forget_link()
        elif isinstance(event, Bye):
            self.log("the keeper has gone: %s" % event.reason)

    def tell(self, event: Event) -> None:
        if self.visitor is not None:
            data = json.dumps(event, separators=(",", ":")).encode("utf-8")
            self.visitor.link.send(0, [data])
            self._hungry_soon()

    # -- feeding ------------------------------------------------------------------------------------------------

    def hungry(self, kernel: Kernel) -> None:
        self._hungry.add(kernel)
        self.pump()

    def _hungry_soon(self) -> None:
        if not self._feeding:
            self.loop.later(0.0, self.pump)

    def _pumped(self) -> None:
        """The link has given out some of what it had: there is room for more."""
        if not self._feeding:
            self._feed()

    def _feed(self) -> None:
        self._feeding = True
        try:
            self._requests.feed()
            for kernel in list(self._hungry):
                if not kernel.feed():
                    self._hungry.discard(kernel)
        finally:
            self._feeding = False

    def pump(self) -> None:
        if self._feeding:
            return
        self._feed()
        if self.visitor is not None:
            self.visitor.pump()

    def kernel_ended(self, kernel: Kernel) -> None:
        self._hungry.add(kernel)
        for other in self.kernels.values():
            if other is not kernel:
                other.seen_oom()
        self._look_whether_idle()


def listen(directory: str) -> socket.socket:
    """The agent's socket, bound under another name first: whoever sees it can connect to it."""
    path = os.path.join(directory, "socket")
    temporary = path + ".new"
    for stale in (temporary, path):
        try:
            if stat.S_ISSOCK(os.lstat(stale).st_mode):
                os.unlink(stale)
        except FileNotFoundError:
            continue
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(temporary)
    os.chmod(temporary, 0o600)
    listener.listen(64)
    os.rename(temporary, path)
    return listener
