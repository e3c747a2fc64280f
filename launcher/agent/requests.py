"""What the keeper asks on channel 0 (docs/architecture.md §4), each a method in one table."""

import json
import os
import signal
import struct
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple, Union

from . import commands, devices, directories, procinfo, records, specs, surroundings
from .choosing import Choosing, Clusters, Outcome, Stopped, visible_to
from .containers import Inside, name_of
from .devices import Chosen
from .feeds import Feed
from .frames import Buffer
from .kernels import CONNECTION, Kernel, State, connection_facts
from .leases import Leases
from .link import Bye, ChannelClosed, ChannelError, Connected, Link, Message, Priority, StreamData
from .places import short_name, subdirectory
from .ports import Ports
from .probes import Programs, probe
from .problems import BadRequest, KernelEnded, NoRoom, NoSuchKernel, Problem, StillRuns
from .reasons import clean
from .scans import look_up, scan
from .serial_lines import SerialLines
from .sockets import CONTROL, IOPUB, NAMES, SHELL, STDIN
from .spawn import LAUNCH

if TYPE_CHECKING:
    from .worker import Worker

Answer = Dict[str, Any]
_REQUEST = struct.Struct(">Q")
_PRIORITIES = {
    CONTROL: Priority.CONTROL,
    SHELL: Priority.SHELL,
    STDIN: Priority.STDIN,
    IOPUB: Priority.OUTPUT,
}
#: As long as more than that waits for a kernel that does not read, the keeper gets no credit back.
_MOST_WAITING = 16 << 20
_LARGEST_LOG = 1 << 20
_FACTS = ("pid", "interrupt", "language", "display_name", "argv", "cwd", "shared", "why", "devices", "engine")


class Later(Exception):
    """The answer will be given by the function that this was raised with."""


class Requests(object):
    """What one keeper asks over its link, and the channels that it opened there.

    Takes requests apart, does them, and answers; a request that makes no sense gets an answer that says so.
    """

    def __init__(self, worker: "Worker", link: Link) -> None:
        self._worker = worker
        self._link = link
        self._kernels: Dict[int, Kernel] = {}  # by channel
        self._journals: List[Feed] = []
        self._unpaid: List[Tuple[Kernel, str, int, int]] = []
        self._programs = Programs(worker.directory)
        self._choosing = Choosing(worker.loop, self._programs, self._devices_settled)
        self._clusters = Clusters(worker.loop, self._programs, worker.directory, self._engine_settled)
        self._ports = Ports(worker.loop, self.tell, worker.pump)
        self._lines = SerialLines(worker.loop, worker.pump)
        self._table: Dict[str, Callable[[Answer], Answer]] = {
            "start": self._start,
            "adopt": self._adopt,
            "attach": self._attach,
            "detach": self._detach,
            "received": self._received,
            "interrupt": self._interrupt,
            "signal": self._signal,
            "stop": self._stop,
            "forget": self._forget,
            "list": self._list,
            "usage": self._usage,
            "log": self._log,
            "journal": self._journal,
            "keep": self._keep,
            "connect": self._connect,
            "reset": self._reset,
            "run": self._run,
            "serial": lambda request: self._lines.open(self._link, request),
            "signals": self._lines.signals,
            "scan": self._scan,
            "bring": self._bring,
            "probe": self._probe,
            "look": self._look,
            "end": self._end,
        }

    def handle(self, event: object) -> None:
        """One event of the link."""
        if isinstance(event, Message):
            if event.channel == 0:
                self._link.consumed(0, len(event.data))
                self.take(bytes(event.data))
            elif event.channel in self._kernels:
                self.to_kernel(self._kernels[event.channel], event.channel, event.data)
            else:
                self._lines.received(self._link, event.channel, event.data)
        elif isinstance(event, ChannelClosed):
            kernel = self._kernels.pop(event.channel, None)
            if kernel is not None:
                kernel.detach_one(event.channel)
            else:
                self.channel_closed(event.channel)
        elif isinstance(event, StreamData):
            self.from_stream(event.channel, event.data)
        elif isinstance(event, Connected) and not event.resumed:
            self.forget_link()
        elif isinstance(event, Bye):
            self._worker.log("the keeper has gone: %s" % event.reason)

    def tell(self, message: Answer) -> None:
        """An answer or an event, for this keeper."""
        self._link.send(0, [json.dumps(message, separators=(",", ":")).encode("utf-8")])
        self._worker.pump_soon()

    def take(self, data: bytes) -> None:
        number: Any = None
        do = ""
        try:
            request = json.loads(data.decode("utf-8"))
            if not isinstance(request, dict):
                raise BadRequest("a request must be an object")
            number, do = request.get("id"), str(request.get("do"))
            act = self._table.get(do)
            if act is None:
                raise BadRequest("the agent cannot do %r" % do[:50])
            request["answer"] = number
        except (ValueError, RecursionError) as error:
            self._refuse(number, do, BadRequest("not a request: %s" % error))
        except Problem as problem:
            self._refuse(number, do, problem)
        else:
            self._act(number, do, act, request)

    def _act(self, number: Any, do: str, act: Callable[[Answer], Answer], request: Answer) -> None:
        try:
            self._answer(number, act(request))
        except Later:
            pass
        except Problem as problem:
            self._refuse(number, do, problem)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            self._refuse(
                number, do, BadRequest("%s: bad arguments (%s: %s)" % (do, type(error).__name__, error))
            )
        except OSError as error:
            self._worker.log.failure(do)
            self._refuse(number, do, Problem("%s failed at the far end: %s" % (do, error), ""))

    def _answer(self, number: Any, answer: Answer) -> None:
        if number is not None:
            self.tell({"id": number, "ok": answer})

    def _refuse(self, number: Any, do: str, problem: Problem) -> None:
        self._worker.log("%s: %s" % (do, problem))
        if number is not None:
            self.tell({"id": number, "error": problem.as_dict()})

    def _kernel(self, request: Answer) -> Kernel:
        kernel = self._worker.kernels.get(str(request["kernel"]))
        if kernel is None:
            raise NoSuchKernel(str(request["kernel"])[:100])
        return kernel

    # -- starting -----------------------------------------------------------------------------------------------

    def _start(self, request: Answer) -> Answer:
        name, life = str(request["kernel"]), int(request["life"])
        kernel = self._worker.kernels.get(name)
        if kernel is not None and kernel.life >= life:
            if kernel.life > life:
                raise BadRequest("life %d of the kernel is over, it is at %d" % (life, kernel.life))
            return self._started(kernel, request)
        if kernel is not None and kernel.state is not State.ENDED:
            raise StillRuns(kernel.life)
        environment = specs.complete_environment(os.environ, specs.NOTHING, {}, [])
        around = surroundings.of_request(request, environment)
        spec = specs.asked(request, environment, around)
        extra = {str(key): str(value) for key, value in dict(request.get("env") or {}).items()}
        unset = [str(one) for one in request.get("unset") or []]
        environment = specs.complete_environment(os.environ, spec, extra, unset)
        chosen = directories.choose(request.get("cwd"), request.get("notebook"))
        cwd = chosen.path
        environment["PWD"] = cwd
        place = subdirectory(self._worker.directory, "k")
        directory = os.path.join(place, short_name(name, 12) if len(name) <= 12 else _hashed(name))
        connection = os.path.join(directory, CONNECTION)
        argv = specs.complete_argv(spec, connection)
        starting, engine = None, {}  # type: Any, Answer
        if request.get("cluster"):
            starting = self._clusters.find(request)
            if starting is None:
                return {"need": "engines"}
            engine = starting.of(request)
            if engine is None:
                starting.begin(request, spec.argv, spec.env, environment)
                raise Later
        gpus = self._devices(request, kernel, name, life)
        visible = dict(devices.variables(gpus), **engine.get("environment", {}))
        environment.update(visible)
        inside = Inside(directory, cwd, name_of(directory, life), sorted({**spec.env, **extra, **visible}))
        command = surroundings.complete(around, argv, inside, environment)
        program = specs.find_program(command, environment, cwd)
        interrupt = request.get("interrupt") or spec.interrupt
        facts = {
            "kernel": name,
            "life": life,
            "state": State.STARTING.value,
            "argv": argv,
            "cwd": cwd,
            "shared": chosen.shared,
            "why": chosen.why,
            "interrupt": "message" if interrupt == "message" else "signal",
            "language": spec.language,
            "display_name": spec.display_name,
            "keep": None if request.get("keep") is None else float(request["keep"]),
            "journal": None if request.get("journal") is None else max(int(request["journal"]), 1 << 20),
            "label": request.get("label"),
            "devices": gpus,
            "wanted_devices": request.get("devices"),
            "engine": engine.get("engine"),
        }
        launch = {"argv": command, "program": program, "env": environment, "cwd": cwd}
        leased = self._choosing.take(name, life)
        if leased is not None:
            self._worker.lease(directory, leased.descriptors, "gpu")
        self._worker.lease(directory, starting.hold(request) if starting else [], "engine")
        try:
            subdirectory(place, os.path.basename(directory))
            if kernel is None:
                kernel = Kernel(self._worker, self._worker.loop, self._worker.log, directory, facts)
            kernel.begin_life(facts)
            key = str(request.get("key") or "")
            records.write(connection, connection_facts(directory, life, key, spec.display_name))
            records.write(os.path.join(directory, LAUNCH), launch)
        except (OSError, Problem) as error:
            self._worker.release(directory)
            if isinstance(error, Problem):
                raise
            raise NoRoom(directory, error.strerror or str(error)) from None
        self._worker.kernels[name] = kernel
        kernel.count_keep()
        self._worker.spawn(kernel)
        return self._started(kernel, request)

    def _devices(self, request: Answer, kernel: Optional[Kernel], name: str, life: int) -> List[devices.Gpu]:
        """Those that it gets, leased; raises `Later` while they are chosen."""
        wanted = devices.wanted_of(request)
        ready = self._choosing.peek(name, life)
        if ready is not None:
            return ready.gpus
        former: List[devices.Gpu] = []
        if kernel is not None:
            former = list(kernel.facts.get("devices") or [])
            if self._worker.has_lease(kernel.directory, "gpu") and kernel.facts.get(
                "wanted_devices"
            ) == request.get("devices"):
                return former  # another life of it, on the same ones
            self._worker.release(kernel.directory, "gpu")
        if wanted is None:
            return []
        self._choosing.begin(request, wanted, visible_to(request), [str(gpu.get("uuid")) for gpu in former])
        raise Later

    def _engine_settled(self, request: Optional[Answer], numbers: List[Any]) -> None:
        for number in numbers:
            if request is None:
                self._refuse(number, "start", Stopped())
            else:
                self._act(number, "start", self._start, dict(request, answer=number))

    def _devices_settled(self, request: Answer, numbers: List[Any], outcome: Outcome) -> None:
        for number in numbers:
            if isinstance(outcome, Problem):
                self._refuse(number, "start", outcome)
            elif isinstance(outcome, Chosen):
                self._act(number, "start", self._start, dict(request, answer=number))
            else:
                self._answer(number, outcome)

    def _started(self, kernel: Kernel, request: Answer) -> Answer:
        if kernel.state is State.ENDED and not kernel.pid:
            raise StartFailed(kernel.facts["reason"]["text"])
        if kernel.pid:
            return {name: kernel.facts.get(name) for name in _FACTS}
        number = request["answer"]

        def spawned(failure: Optional[str]) -> None:
            if failure is not None:
                self._refuse(number, "start", StartFailed(failure))
            else:
                self._answer(number, {name: kernel.facts.get(name) for name in _FACTS})

        kernel.on_spawned.append(spawned)
        raise Later

    # -- listening ----------------------------------------------------------------------------------------------

    def _attach(self, request: Answer) -> Answer:
        kernel, link = self._kernel(request), self._link
        channels = {str(name): int(number) for name, number in dict(request["channels"]).items()}
        received = {str(name): int(number) for name, number in dict(request.get("received") or {}).items()}
        if not set(channels) <= set(NAMES):
            raise BadRequest("a kernel has only these channels: %s" % ", ".join(NAMES))
        self._worker.take_from_others(kernel, self)
        self._detach_channels(kernel)
        try:
            for name, number in channels.items():
                link.open(number, _PRIORITIES[name])
        except ChannelError as error:
            raise BadRequest(str(error)) from None
        for number in channels.values():
            self._kernels[number] = kernel
        first = {name: kernel.sockets[name].tape.first for name in NAMES}
        kernel.attach(link, channels, received)
        return {
            "state": kernel.shown_state,
            "life": kernel.life,
            "taken": {name: kernel.sockets[name].taken for name in NAMES if name != IOPUB},
            "first": first,
            "reason": kernel.facts.get("reason") if kernel.shown_state == State.ENDED.value else None,
        }

    def _adopt(self, request: Answer) -> Answer:
        """What a keeper must know that did not start the kernel.  With ``spare``: only if it is one, of that kind."""
        kernel = self._kernel(request)
        if request.get("spare"):
            if (kernel.facts.get("label") or {}).get("spare") != request["spare"]:
                raise NoSuchKernel(kernel.id)
            kernel.facts["label"] = request.get("label")
            kernel.save()
        connection = records.read(os.path.join(kernel.directory, CONNECTION)) or {}
        told = {name: kernel.facts.get(name) for name in ("kernel", "life", "label", "started", "interrupt")}
        received = {name: kernel.sockets[name].tape.received for name in NAMES}
        return dict(told, key=connection.get("key"), state=kernel.shown_state, received=received)

    def _detach(self, request: Answer) -> Answer:
        kernel = self._kernel(request)
        self._detach_channels(kernel)
        return {}

    def has(self, kernel: Kernel) -> bool:
        """Whether that kernel is attached here."""
        return any(self._kernels.get(number) is kernel for number in kernel.channels.values())

    def taken(self, kernel: Kernel, by: Answer) -> None:
        """Another keeper of the same user attaches it."""
        self._detach_channels(kernel)
        self.tell({"event": "taken", "kernel": kernel.id, "by": by})

    def _detach_channels(self, kernel: Kernel) -> None:
        if self.has(kernel):
            for number in kernel.channels.values():
                self._kernels.pop(number, None)
            kernel.detach(self._link)

    def _received(self, request: Answer) -> Answer:
        kernel = self._kernel(request)
        for name, number in dict(request["numbers"]).items():
            if name in kernel.sockets:
                kernel.sockets[name].tape.received = int(number)
        return {}

    def _journal(self, request: Answer) -> Answer:
        kernel, link = self._kernel(request), self._link
        if request["name"] not in kernel.sockets:
            raise BadRequest("no such journal: %s" % request["name"])
        tape = kernel.sockets[request["name"]].tape
        first = max(int(request["first"]), tape.first)
        if request.get("since") is not None:
            first = max(first, tape.first_since(int(request["since"])))
        try:
            link.open(int(request["channel"]), Priority.OUTPUT)
        except ChannelError as error:
            raise BadRequest(str(error)) from None
        feed = Feed(link, int(request["channel"]), tape, first, _nothing, tape.last)
        self._journals.append(feed)
        return {"first": first, "last": tape.last, "oldest": tape.first, "bound": tape.bound}

    def feed(self) -> None:
        """Whatever waits for room: journals in the link, and the keeper for a kernel to read."""
        for feed in list(self._journals):
            feed.feed()
            if feed.closed:
                self._journals.remove(feed)
        unpaid, self._unpaid = self._unpaid, []
        for kernel, name, channel, size in unpaid:
            self._pay(kernel, name, channel, size)
        self._ports.feed()
        self._lines.feed()

    def forget_link(self) -> None:
        """All channels are gone; the kernels live on."""
        kernels, self._kernels = set(self._kernels.values()), {}
        for kernel in kernels:
            kernel.detach(None)
        self._ports.abandon()
        self._lines.abandon()
        del self._journals[:]
        del self._unpaid[:]

    def link_is_away(self) -> None:
        """Its connection is gone, and may come again: `keep` counts meanwhile."""
        for kernel in set(self._kernels.values()):
            kernel.count_keep()

    def link_is_back(self) -> None:
        for kernel in set(self._kernels.values()):
            kernel.stop_keep_while_attached()

    def from_stream(self, channel: int, data: Buffer) -> None:
        """Bytes for a connection to a port."""
        self._ports.received(self._link, channel, data)

    def channel_closed(self, channel: int) -> None:
        """The keeper sends no more on a channel that is no kernel's."""
        for feed in self._journals:
            if feed.channel == channel:
                feed.close()  # it does not want the rest
        if not self._lines.closed(self._link, channel):
            self._ports.closed(channel)

    def to_kernel(self, kernel: Kernel, channel: int, data: Buffer) -> None:
        """A request for the kernel itself: its number, then the encoded message."""
        name = next((name for name, number in kernel.channels.items() if number == channel), IOPUB)
        if len(data) > _REQUEST.size and name != IOPUB and kernel.state is not State.ENDED:
            number = _REQUEST.unpack_from(data)[0]
            kernel.sockets[name].tell([memoryview(data)[_REQUEST.size :]], number)
        self._pay(kernel, name, channel, len(data))

    def _pay(self, kernel: Kernel, name: str, channel: int, size: int) -> None:
        if kernel.state is not State.ENDED and kernel.sockets[name].waiting > _MOST_WAITING:
            self._unpaid.append((kernel, name, channel, size))
            self._worker.loop.later(0.05, self._worker.pump)
        else:
            self._link.consumed(channel, size)

    # -- acting -------------------------------------------------------------------------------------------------

    def _interrupt(self, request: Answer) -> Answer:
        kernel = self._kernel(request)
        if kernel.state is State.ENDED:
            raise KernelEnded("be interrupted")
        if kernel.facts["interrupt"] == "message":
            return {"how": "message"}
        kernel.signal(signal.SIGINT, True)
        return {"how": "signal"}

    def _signal(self, request: Answer) -> Answer:
        signum = int(request["signum"])
        if not 0 < signum < signal.NSIG:
            raise BadRequest("there is no signal %d" % signum)
        self._kernel(request).signal(signum, bool(request.get("group")))
        return {}

    def _stop(self, request: Answer) -> Answer:
        if self._choosing.cancel(str(request["kernel"])) or self._clusters.cancel(str(request["kernel"])):
            return {}
        kernel = self._kernel(request)
        if kernel.state is State.ENDED:
            return {}
        number = request["answer"]
        kernel.on_ended.append(lambda: self._answer(number, {}))
        kernel.end("stopped", float(request.get("grace") or 0))
        raise Later

    def _forget(self, request: Answer) -> Answer:
        self._choosing.cancel(str(request["kernel"]))
        kernel = self._worker.kernels.get(str(request["kernel"]))
        if kernel is None:
            return {}
        if kernel.state is not State.ENDED:
            raise StillRuns(kernel.life)
        self._worker.release(kernel.directory)
        self._worker.take_from_others(kernel, self)
        self._detach_channels(kernel)
        kernel.remove()
        del self._worker.kernels[kernel.id]
        return {}

    def _keep(self, request: Answer) -> Answer:
        kernel = self._kernel(request)
        kernel.facts["keep"] = None if request.get("keep") is None else float(request["keep"])
        kernel.save()
        if not kernel.feeds:
            kernel.count_keep()
        return {}

    def _end(self, request: Answer) -> Answer:
        self._choosing.cancel_all()
        running = [kernel for kernel in self._worker.kernels.values() if kernel.state is not State.ENDED]
        if running and request.get("if_idle"):
            raise StillRunning(len(running))
        number = request["answer"]

        def ended() -> None:
            if all(kernel.state is State.ENDED for kernel in self._worker.kernels.values()):
                self._answer(number, {})
                self._worker.pump()
                self._worker.loop.later(0.0, self._worker.end)

        for kernel in running:
            kernel.on_ended.append(ended)
            kernel.end("stopped", 5.0)
        if not running:
            ended()
        raise Later

    # -- ports --------------------------------------------------------------------------------------------------

    def _connect(self, request: Answer) -> Answer:
        number = request["answer"]

        def done(outcome: Union[str, Problem]) -> None:
            if isinstance(outcome, Problem):
                self._refuse(number, "connect", outcome)
            else:
                self._answer(number, {"address": outcome})

        self._ports.connect(self._link, request, done)
        raise Later

    def _run(self, request: Answer) -> Answer:
        number = request["answer"]

        def done(outcome: Union[str, Problem]) -> None:
            if isinstance(outcome, Problem):
                self._refuse(number, "run", outcome)
            else:
                self._answer(number, {"program": outcome})

        commands.run(self._ports, self._link, request, done)
        raise Later

    def _reset(self, request: Answer) -> Answer:
        self._ports.reset(int(request["channel"]))
        return {}

    # -- looking ------------------------------------------------------------------------------------------------

    def _list(self, request: Answer) -> Answer:
        sessions = procinfo.sessions()
        kernels = list(self._worker.kernels.values())
        return {
            "kernels": [dict(one.listed(sessions), attended=self._worker.is_attended(one)) for one in kernels]
        }

    def _scan(self, request: Answer) -> Answer:
        number = request["answer"]
        deadline = float(request.get("deadline") or 20)
        program = str(request["program"])
        scan(self._worker.loop, deadline, program, lambda found: self._answer(number, found))
        raise Later

    def _bring(self, request: Answer) -> Answer:
        self._programs.bring(str(request["program"]), str(request["content"]))
        return {}

    def _probe(self, request: Answer) -> Answer:
        number = request["answer"]

        def done(outcome: Union[Answer, Problem]) -> None:
            if isinstance(outcome, Problem):
                self._refuse(number, "probe", outcome)
                return
            Leases().add_to(outcome.get("machine") or {})
            self._answer(number, outcome)

        probe(self._worker.loop, self._programs, request, done)
        raise Later

    def _look(self, request: Answer) -> Answer:
        found, number = look_up(request), request["answer"]
        if request.get("cluster"):
            starting = self._clusters.find(request)
            if starting is None:
                return {"need": "engines"}
            done = self._answer
            starting.check(
                request, found["argv"], {}, dict(os.environ), lambda it: done(number, dict(found, **it))
            )
            raise Later
        return found

    def _usage(self, request: Answer) -> Answer:
        kernels = [self._kernel(request)] if request.get("kernel") else list(self._worker.kernels.values())
        sessions = procinfo.sessions()
        return {"kernels": {kernel.id: kernel.listed(sessions)["usage"] for kernel in kernels}}

    def _log(self, request: Answer) -> Answer:
        size = min(int(request.get("size") or 65536), _LARGEST_LOG)
        return {"text": clean(self._kernel(request).output.tail(size).decode("utf-8", "replace"))}


class StartFailed(Problem):
    kind = "start"

    def __init__(self, what: str) -> None:
        super().__init__(what, "See the agent's log at the far end")


class StillRunning(Problem):
    kind = "running"

    def __init__(self, count: int) -> None:
        super().__init__("the agent has %d running kernels" % count, "Stop them first")


def _nothing(first: int, last: int, size: Optional[int]) -> None:
    """A journal says by its numbers what it has not got."""


def _hashed(name: str) -> str:
    return short_name(name + "/", 12)
