"""The worker: one thread that moves bytes between kernels, tapes and the link, and does what the keeper asks."""

import os
import signal
import socket
import stat
import struct
from typing import Dict, List, Optional, Set

from . import guard, records
from .frames import open_hello
from .guard import Held
from .kernels import RECORD, Event, Holder, Kernel, State
from .link import Link, LinkViolation, Role
from .listening import Listening
from .log import Log
from .loop import Loop, Timer
from .places import subdirectory
from .problems import NoSuchKernel
from .requests import Requests
from .spawn import LAUNCH, process_record
from .visitor import Handover, Visitor

LOCK, LISTENER = "lock", "listener"
IDLE = 60.0
LEASE_LINGER = 10.0
_ENDING = 5.0
_REST = 10.0
_MOST_VISITORS = 16  # sessions of keepers, most of them of machines that sleep or are no more
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
        self._visitors: List[Visitor] = []
        self._channel = channel
        #: Names of what the guard holds, with our own descriptors; those who use them close them.
        self._held = held.descriptors
        self._children = set(children)
        self._hungry: Set[Kernel] = set()
        self._feeding = False
        self._pumping_soon = False
        self._idle: Optional[Timer] = None
        self._idle_after = float(os.environ.get("FARKERNEL_AGENT_IDLE", IDLE))
        self._listener = socket.socket(fileno=os.dup(self._held[LISTENER]))
        self._replace_guard = False
        self._ended = False

    def __repr__(self) -> str:
        return "<Worker of %s, %d kernels, %r>" % (self.directory, len(self.kernels), self._visitors)

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
        self.loop.later(_REST, _import_rest)
        while not self._ended:
            self.loop.run()
            if self._replace_guard and os.environ.get("FARKERNEL_JOB"):
                self._end_with_the_job()
            elif self._replace_guard:
                self._make_guard()
        if not self._replace_guard:
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
                if kernel.state is State.ENDED:
                    self._release_later(kernel)
            except (OSError, ValueError, KeyError, TypeError):
                self.log.failure("taking up %s" % directory)

    def _look_whether_idle(self) -> None:
        busy = any(kernel.state is not State.ENDED for kernel in self.kernels.values())
        if busy or any(visitor.is_connected for visitor in self._visitors):
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
        elif self._idle is None:
            self._idle = self.loop.later(self._idle_after, self.end)

    def end(self) -> None:
        """Kernels that still run are left alone: the next agent takes them up."""
        self.log("the agent ends")
        for visitor in self._visitors:
            visitor.leave("the agent has ended")
            visitor.requests.forget_link()
        self._go()

    def _go(self) -> None:
        try:
            os.unlink(os.path.join(self.directory, "socket"))
        except FileNotFoundError:
            pass
        if not self.kernels:
            # The lock is still ours.  A loader that is in there just now finds nothing, and its keeper tries again.
            import shutil

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

    def lease(self, directory: str, descriptors: List[int], what: str) -> None:
        """Leases for the kernel of that directory: held by us, by the guard, and by the kernel itself."""
        self.release(directory, what)
        prefix = guard.lease_prefix(directory) + what
        if descriptors:
            self.hold(["%s%d" % (prefix, number) for number in range(len(descriptors))], descriptors)

    def has_lease(self, directory: str, what: str = "") -> bool:
        return any(name.startswith(guard.lease_prefix(directory) + what) for name in self._held)

    def release(self, directory: str, what: str = "") -> None:
        prefix = guard.lease_prefix(directory) + what
        descriptors = [self._held[name] for name in self._held if name.startswith(prefix)]
        if descriptors:
            self.let_go(prefix)
            for descriptor in descriptors:
                os.close(descriptor)

    def _release_later(self, kernel: Kernel) -> None:
        """A GPU is not lost between two lives of a kernel."""

        def release() -> None:
            if kernel.state is State.ENDED:
                self.release(kernel.directory)

        if self.has_lease(kernel.directory):
            self.loop.later(LEASE_LINGER, release)

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

    def _end_with_the_job(self) -> None:
        """Its script has waited for the guard: it is over, whether its scheduler finds us and the kernels or not."""
        self.log("the guard died, and the job with it")
        for kernel in self.kernels.values():
            if kernel.pid and kernel.state is not State.ENDED:
                kernel.signal_session(signal.SIGKILL)
        self.kernels.clear()
        self._go()  # without a word to the keeper: the scheduler knows why

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
        visitor = next((one for one in self._visitors if one.link.session == hello["session"]), None)
        if visitor is None:
            self._displace(hello["about"])
            about = {"pid": os.getpid(), "host": os.uname()[1]}
            link = Link(Role.AGENT, hello["session"], about)
            visitor = Visitor(self.loop, self.log, link, Requests(self, link), self._feed_more, self._gone)
            self._visitors.append(visitor)
        visitor.connect(handover)
        visitor.requests.listening.link_is_back()
        self._look_whether_idle()

    def _displace(self, about: Event) -> None:
        """A keeper that was started again has no use for its former session, nor have we for very many."""
        same = [one for one in self._visitors if _is_former(_about(one), about)]
        away = [one for one in self._visitors if not one.is_connected and one not in same]
        for former in same + away[: max(len(self._visitors) - len(same) - _MOST_VISITORS + 1, 0)]:
            self.log("the session of a keeper%s is over" % _who(_about(former)))
            former.requests.forget_link()
            former.leave("another keeper%s has taken over" % _who(about))
            self._visitors.remove(former)

    def take_from_others(self, kernel: Kernel, taker: Listening) -> None:
        """The kernel is one keeper's at a time; whoever had it is told."""
        for visitor in self._visitors:
            listening = visitor.requests.listening
            if listening is not taker and listening.has(kernel):
                listening.taken(kernel, self._about(taker))

    def _about(self, taker: Listening) -> Event:
        about = next((_about(one) for one in self._visitors if one.requests.listening is taker), {})
        return {name: str(about[name])[:100] for name in ("user", "host") if name in about}

    def is_attended(self, kernel: Kernel) -> bool:
        """Whether a keeper that can be reached has it."""
        return any(one.is_connected and one.requests.listening.has(kernel) for one in self._visitors)

    def _gone(self, visitor: Visitor, for_good: bool) -> None:
        if visitor not in self._visitors:
            return
        if for_good:
            self._visitors.remove(visitor)
            visitor.requests.forget_link()
        visitor.requests.listening.link_is_away()
        self._look_whether_idle()

    def kernel(self, request: Event) -> Kernel:
        """The one that a request names; raises `NoSuchKernel`."""
        kernel = self.kernels.get(str(request["kernel"]))
        if kernel is None:
            raise NoSuchKernel(str(request["kernel"])[:100])
        return kernel

    def tell(self, event: Event) -> None:
        """All keepers: each knows which kernels are its own."""
        for visitor in self._visitors:
            visitor.requests.tell(event)

    # -- feeding ------------------------------------------------------------------------------------------------

    def hungry(self, kernel: Kernel) -> None:
        self._hungry.add(kernel)
        self.pump_soon()

    def pump_soon(self) -> None:
        """Once for all that is said in one turn of the loop: what comes together goes out together."""
        if not self._pumping_soon:
            self._pumping_soon = True
            self.loop.soon(self._pump_now)

    def _pump_now(self) -> None:
        self._pumping_soon = False
        self.pump()

    def _feed_more(self) -> None:
        """A link has given out some of what it had: there is room for more."""
        if not self._feeding:
            self._feed()

    def _feed(self) -> None:
        self._feeding = True
        try:
            for visitor in self._visitors:
                visitor.requests.feed()
            for kernel in list(self._hungry):
                if not kernel.feed():
                    self._hungry.discard(kernel)
        finally:
            self._feeding = False

    def pump(self) -> None:
        if self._feeding:
            return
        self._feed()
        for visitor in list(self._visitors):
            visitor.pump()

    def kernel_ended(self, kernel: Kernel) -> None:
        self._hungry.add(kernel)
        self._release_later(kernel)
        for other in self.kernels.values():
            if other is not kernel:
                other.seen_oom()
        self._look_whether_idle()


def _import_rest() -> None:
    """What is seldom used was left out at the start.  In a month the machine may have another Python in its place."""
    for name in ("difflib", "shutil", "subprocess", "tempfile", "traceback"):
        __import__(name)


def _about(visitor: Visitor) -> Event:
    about = visitor.link.peer.get("about")
    return about if isinstance(about, dict) else {}


def _is_former(one: Event, other: Event) -> bool:
    """Whether that session is over when this one begins.  A keeper that reaches us by two names has one by each."""
    if one.get("keeper") != other.get("keeper"):
        return False
    return one.get("pid") != other.get("pid") or one.get("allocation") == other.get("allocation")


def _who(about: Event) -> str:
    return " of %s on %s" % (about["user"], about.get("host", "?")) if about.get("user") else ""


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
