"""Starts that wait while GPUs are looked at and leased for them, or while an engine is started."""

import os
import zipimport
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from . import devices, surroundings
from .children import Child
from .containers import Inside
from .devices import Chosen, Wanted
from .leases import Leases
from .loop import Loop
from .places import subdirectory
from .probes import Programs, probe
from .problems import BadRequest, Problem

_PARTS = ["nvidia", "graphics"]
_OPENCL_PARTS = ["opencl", "opencl of the kernel"]
_VISIBLE = "CUDA_VISIBLE_DEVICES"
Answer = Dict[str, Any]

Waiting = NamedTuple("Waiting", [("life", int), ("request", Answer), ("numbers", List[Any])])
Outcome = Union[Chosen, Answer, Problem]


class Choosing(object):
    """``settled`` is called with the request, the numbers of all that asked for it, and what came of it.

    What came: `Chosen`, which is then kept for `take`; what is needed first; or why not.
    """

    def __init__(
        self, loop: Loop, programs: Programs, settled: Callable[[Answer, List[Any], Outcome], None]
    ) -> None:
        self._loop = loop
        self._programs = programs
        self._settled = settled
        self._waiting: Dict[str, Waiting] = {}
        self._chosen: Dict[str, Tuple[int, Chosen]] = {}

    def peek(self, name: str, life: int) -> Optional[Chosen]:
        """What was chosen for that life, while its start is gone through."""
        chosen = self._chosen.get(name)
        return chosen[1] if chosen is not None and chosen[0] == life else None

    def take(self, name: str, life: int) -> Optional[Chosen]:
        """What was chosen for that life; whoever takes it sees to its leases."""
        chosen = self.peek(name, life)
        if chosen is not None:
            del self._chosen[name]
        return chosen

    def begin(self, request: Answer, wanted: Wanted, visible: Optional[str], former: List[str]) -> None:
        """Asked again while it goes on, the answer goes to both."""
        name, life, number = str(request["kernel"]), int(request["life"]), request["answer"]
        waiting = self._waiting.get(name)
        if waiting is not None and waiting.life == life:
            waiting.numbers.append(number)
            return
        self.cancel(name)
        waiting = self._waiting[name] = Waiting(life, request, [number])
        choose = {
            "count": wanted.gpus,
            "memory": wanted.memory,
            "opencl": wanted.opencl,
            "visible": visible,
            "former": former,
        }
        asked = {"programs": request.get("programs"), "wanted": _PARTS, "choose": choose}
        if wanted.opencl:
            asked["wanted"] = _PARTS + _OPENCL_PARTS
            asked.update({key: request.get(key) for key in ("kernelspec", "python")})
        leases = Leases()
        about = {"kernel": name}

        def looked(outcome: Union[Answer, Problem]) -> None:
            if self._waiting.get(name) is not waiting:
                return  # it was stopped meanwhile
            del self._waiting[name]
            self._settle(waiting, _chosen(outcome, wanted, leases, about))

        probe(self._loop, self._programs, asked, looked)

    def _settle(self, waiting: Waiting, outcome: Outcome) -> None:
        name = str(waiting.request["kernel"])
        if isinstance(outcome, Chosen):
            self._chosen[name] = (waiting.life, outcome)
        self._settled(waiting.request, waiting.numbers, outcome)
        left = self.take(name, waiting.life)
        if left is not None:
            left.close()  # it could not be started for another reason

    def cancel(self, name: str) -> bool:
        """Nobody wants it to start any more; whether it was about to."""
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            self._settled(waiting.request, waiting.numbers, Stopped())
        return waiting is not None

    def cancel_all(self) -> None:
        for name in list(self._waiting):
            self.cancel(name)


class Stopped(Problem):
    kind = "start"

    def __init__(self) -> None:
        super().__init__("it was stopped before it had started", "Start it again")


def _chosen(
    outcome: Union[Answer, Problem],
    wanted: Wanted,
    leases: Leases,
    about: Answer,
) -> Outcome:
    if isinstance(outcome, Problem) or "need" in outcome:
        return outcome
    try:
        return devices.lease(outcome["machine"], wanted, leases, about)
    except Problem as problem:
        return problem
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return BadRequest("what the probe found cannot be read (%s: %s)" % (type(error).__name__, error))


def visible_to(request: Mapping[str, Any]) -> Optional[str]:
    """Those that whoever configured the target, or the machine, gives us at most; None: all."""
    asked = dict(request.get("env") or {}).get(_VISIBLE)
    return str(asked) if asked is not None else os.environ.get(_VISIBLE)


class Clusters(object):
    """Engines across several nodes: what starts them, and what of it works in here (`engines/starting.py`), comes with
    a program that the keeper brings."""

    def __init__(self, loop: Loop, programs: Programs, directory: str, again: Callable[..., None]) -> None:
        self._programs = programs
        self._child = partial(Child, loop)
        self._directory = directory
        self._again = again
        self._loaded: Dict[str, Any] = {}

    def find(self, request: Mapping[str, Any]) -> Any:
        """Its `Starting`; None: the program must be brought first."""
        path = self._programs.find(request["programs"].get("engines"))
        if path is not None and path not in self._loaded:
            names: Dict[str, Any] = {}
            text = zipimport.zipimporter(path).get_data(
                os.path.join(path, "farkernel_engines", "starting.py")
            )
            exec(text, names)  # noqa: S102 - as its other part is run
            place = subdirectory(self._directory, "e")
            self._loaded[path] = names["Starting"](path, place, self._child, _prefix, self._again)
        return self._loaded.get(path or "")

    def cancel(self, kernel: str) -> bool:
        return any(one.cancel(kernel) for one in self._loaded.values())


def _prefix(request: Mapping[str, Any], directory: str, name: str, variables: List[str]) -> List[str]:
    around = surroundings.of_request(request, os.environ)
    return surroundings.complete(around, [], Inside(directory, directory, name, variables), os.environ)
