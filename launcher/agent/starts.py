"""Starting a kernel: what is asked for becomes records on the disk, and then the guard is told."""

import os
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from . import devices, directories, records, specs, surroundings
from .answers import Act, Answer, Answers, Later
from .choosing import Choosing, Clusters, Outcome, Stopped, visible_to
from .containers import Inside, name_of
from .devices import Chosen
from .kernels import CONNECTION, Kernel, State, connection_facts
from .places import short_name, subdirectory
from .probes import Programs
from .problems import BadRequest, NoRoom, Problem, StillRuns
from .spawn import LAUNCH

if TYPE_CHECKING:
    from .worker import Worker

_FACTS = ("pid", "interrupt", "language", "display_name", "argv", "cwd", "shared", "why", "devices", "engine")


class StartFailed(Problem):
    kind = "start"

    def __init__(self, what: str) -> None:
        super().__init__(what, "See the agent's log at the far end")


class Starts(object):
    """Some wait while GPUs are leased for them, or an engine is started: then their request is gone through again."""

    def __init__(self, worker: "Worker", answers: Answers, programs: Programs) -> None:
        self._worker = worker
        self._answers = answers
        self._choosing = Choosing(worker.loop, programs, self._devices_settled)
        self.clusters = Clusters(worker.loop, programs, worker.directory, self._engine_settled)

    def table(self) -> Dict[str, Act]:
        return {"start": self._start}

    def cancel(self, kernel: str) -> bool:
        """Whether it was still waiting to be started."""
        return self._choosing.cancel(kernel) or self.clusters.cancel(kernel)

    def cancel_choosing(self, kernel: str) -> None:
        self._choosing.cancel(kernel)

    def cancel_all(self) -> None:
        self._choosing.cancel_all()

    def _start(self, request: Answer) -> Answer:
        name, life = str(request["kernel"]), int(request["life"])
        kernel = self._worker.kernels.get(name)
        if kernel is not None and kernel.life >= life:
            if kernel.life > life:
                raise BadRequest("life %d of the kernel is over, it is at %d" % (life, kernel.life))
            return self._started(kernel, request)
        if kernel is not None and kernel.state is not State.ENDED:
            raise StillRuns(kernel.life)
        plan = _plan(self._worker.directory, name, request)
        spec, environment, directory = plan.spec, plan.environment, plan.directory
        starting, engine = None, {}  # type: Any, Answer
        if request.get("cluster"):
            starting = self.clusters.find(request)
            if starting is None:
                return {"need": "engines"}
            engine = starting.of(request)
            if engine is None:
                starting.begin(request, spec.argv, spec.env, environment)
                raise Later
        gpus = self._devices(request, kernel, name, life)
        visible = dict(devices.variables(gpus), **engine.get("environment", {}))
        environment.update(visible)
        cwd = plan.cwd.path
        names = sorted({**spec.env, **plan.extra, **visible})
        inside = Inside(directory, cwd, name_of(directory, life), names)
        command = surroundings.complete(plan.around, plan.argv, inside, environment)
        program = specs.find_program(command, environment, cwd)
        facts = dict(_facts(request, plan), devices=gpus, engine=engine.get("engine"))
        leased = self._choosing.take(name, life)
        if leased is not None:
            self._worker.lease(directory, leased.descriptors, "gpu")
        self._worker.lease(directory, starting.hold(request) if starting else [], "engine")
        launch = {"argv": command, "program": program, "env": environment, "cwd": cwd}
        kernel = self._write_down(kernel, facts, launch, directory, str(request.get("key") or ""))
        self._worker.kernels[name] = kernel
        kernel.count_keep()
        self._worker.spawn(kernel)
        return self._started(kernel, request)

    def _write_down(
        self, kernel: Optional[Kernel], facts: Answer, launch: Answer, directory: str, key: str
    ) -> Kernel:
        """Before anything is done about it."""
        connection = connection_facts(directory, facts["life"], key, facts["display_name"])
        try:
            subdirectory(os.path.dirname(directory), os.path.basename(directory))
            if kernel is None:
                kernel = Kernel(self._worker, self._worker.loop, self._worker.log, directory, facts)
            kernel.begin_life(facts)
            records.write(os.path.join(directory, CONNECTION), connection)
            records.write(os.path.join(directory, LAUNCH), launch)
        except (OSError, Problem) as error:
            self._worker.release(directory)
            if isinstance(error, Problem):
                raise
            raise NoRoom(directory, error.strerror or str(error)) from None
        return kernel

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
                self._answers.refuse(number, "start", Stopped())
            else:
                self._answers.settle(number, "start", self._start, dict(request, answer=number))

    def _devices_settled(self, request: Answer, numbers: List[Any], outcome: Outcome) -> None:
        for number in numbers:
            if isinstance(outcome, Problem):
                self._answers.refuse(number, "start", outcome)
            elif isinstance(outcome, Chosen):
                self._answers.settle(number, "start", self._start, dict(request, answer=number))
            else:
                self._answers.give(number, outcome)

    def _started(self, kernel: Kernel, request: Answer) -> Answer:
        if kernel.state is State.ENDED and not kernel.pid:
            raise StartFailed(kernel.facts["reason"]["text"])
        if kernel.pid:
            return {name: kernel.facts.get(name) for name in _FACTS}
        number = request["answer"]

        def spawned(failure: Optional[str]) -> None:
            if failure is not None:
                self._answers.refuse(number, "start", StartFailed(failure))
            else:
                self._answers.give(number, {name: kernel.facts.get(name) for name in _FACTS})

        kernel.on_spawned.append(spawned)
        raise Later


#: What a request comes to on this machine, before it is known which devices and which engine it gets.
_Plan = NamedTuple(
    "_Plan",
    [
        ("around", surroundings.Surroundings),
        ("spec", specs.Spec),
        ("extra", Dict[str, str]),
        ("environment", Dict[str, str]),
        ("cwd", directories.Chosen),
        ("directory", str),
        ("argv", List[str]),
    ],
)


def _plan(agent: str, name: str, request: Answer) -> _Plan:
    environment = specs.complete_environment(os.environ, specs.NOTHING, {}, [])
    around = surroundings.of_request(request, environment)
    spec = specs.asked(request, environment, around)
    extra = {str(key): str(value) for key, value in dict(request.get("env") or {}).items()}
    unset = [str(one) for one in request.get("unset") or []]
    environment = specs.complete_environment(os.environ, spec, extra, unset)
    cwd = directories.choose(request.get("cwd"), request.get("notebook"))
    environment["PWD"] = cwd.path
    short = short_name(name if len(name) <= 12 else name + "/", 12)
    directory = os.path.join(subdirectory(agent, "k"), short)
    argv = specs.complete_argv(spec, os.path.join(directory, CONNECTION))
    return _Plan(around, spec, extra, environment, cwd, directory, argv)


def _facts(request: Answer, plan: _Plan) -> Answer:
    """What must survive the worker about a kernel that begins."""
    interrupt = request.get("interrupt") or plan.spec.interrupt
    return {
        "kernel": str(request["kernel"]),
        "life": int(request["life"]),
        "state": State.STARTING.value,
        "argv": plan.argv,
        "cwd": plan.cwd.path,
        "shared": plan.cwd.shared,
        "why": plan.cwd.why,
        "interrupt": "message" if interrupt == "message" else "signal",
        "language": plan.spec.language,
        "display_name": plan.spec.display_name,
        "keep": None if request.get("keep") is None else float(request["keep"]),
        "journal": None if request.get("journal") is None else max(int(request["journal"]), 1 << 20),
        "label": request.get("label"),
        "wanted_devices": request.get("devices"),
    }
