"""What the keeper asks about, and nothing is changed by: kernels, their logs, this machine, what is installed."""

import os
from typing import TYPE_CHECKING, Dict, Union

from . import procinfo
from .answers import Act, Answer, Answers, Later
from .choosing import Clusters
from .leases import Leases
from .probes import Programs, probe
from .problems import Problem
from .reasons import clean
from .scans import look_up, scan

if TYPE_CHECKING:
    from .worker import Worker

_LARGEST_LOG = 1 << 20


class Looking(object):
    """`bring` belongs to it: it is how the programs come that look."""

    def __init__(self, worker: "Worker", answers: Answers, programs: Programs, clusters: Clusters) -> None:
        self._worker = worker
        self._answers = answers
        self._programs = programs
        self._clusters = clusters

    def table(self) -> Dict[str, Act]:
        return {
            "list": self._list,
            "usage": self._usage,
            "log": self._log,
            "scan": self._scan,
            "bring": self._bring,
            "probe": self._probe,
            "look": self._look,
        }

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
        scan(self._worker.loop, deadline, program, lambda found: self._answers.give(number, found))
        raise Later

    def _bring(self, request: Answer) -> Answer:
        self._programs.bring(str(request["program"]), str(request["content"]))
        return {}

    def _probe(self, request: Answer) -> Answer:
        number = request["answer"]

        def done(outcome: Union[Answer, Problem]) -> None:
            if isinstance(outcome, Problem):
                self._answers.refuse(number, "probe", outcome)
                return
            Leases().add_to(outcome.get("machine") or {})
            self._answers.give(number, outcome)

        probe(self._worker.loop, self._programs, request, done)
        raise Later

    def _look(self, request: Answer) -> Answer:
        found, number = look_up(request), request["answer"]
        if request.get("cluster"):
            starting = self._clusters.find(request)
            if starting is None:
                return {"need": "engines"}
            done = self._answers.give
            starting.check(
                request, found["argv"], {}, dict(os.environ), lambda it: done(number, dict(found, **it))
            )
            raise Later
        return found

    def _usage(self, request: Answer) -> Answer:
        kernels = (
            [self._worker.kernel(request)] if request.get("kernel") else list(self._worker.kernels.values())
        )
        sessions = procinfo.sessions()
        return {"kernels": {kernel.id: kernel.listed(sessions)["usage"] for kernel in kernels}}

    def _log(self, request: Answer) -> Answer:
        size = min(int(request.get("size") or 65536), _LARGEST_LOG)
        return {"text": clean(self._worker.kernel(request).output.tail(size).decode("utf-8", "replace"))}
