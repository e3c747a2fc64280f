"""What the keeper does to kernels: interrupt, signal, stop and forget them, and end the agent."""

import signal
from typing import TYPE_CHECKING, Dict

from .answers import Act, Answer, Answers, Later
from .kernels import State
from .listening import Listening
from .problems import BadRequest, KernelEnded, Problem, StillRuns
from .starts import Starts

if TYPE_CHECKING:
    from .worker import Worker


class StillRunning(Problem):
    kind = "running"

    def __init__(self, count: int) -> None:
        super().__init__("the agent has %d running kernels" % count, "Stop them first")


class Acting(object):
    """Also for kernels that another keeper has attached: they are all the same user's."""

    def __init__(self, worker: "Worker", answers: Answers, starts: Starts, listening: Listening) -> None:
        self._worker = worker
        self._answers = answers
        self._starts = starts
        self._listening = listening

    def table(self) -> Dict[str, Act]:
        return {
            "interrupt": self._interrupt,
            "signal": self._signal,
            "stop": self._stop,
            "forget": self._forget,
            "keep": self._keep,
            "end": self._end,
        }

    def _interrupt(self, request: Answer) -> Answer:
        kernel = self._worker.kernel(request)
        if kernel.state is State.ENDED:
            raise KernelEnded("be interrupted")
        if kernel.facts["interrupt"] == "message":
            return {"how": "message"}
        if request.get("if_it_listens") and kernel.ignores(signal.SIGINT):
            return {"how": "none"}  # as ipykernel does between two cells
        kernel.signal(signal.SIGINT, True)
        return {"how": "signal"}

    def _signal(self, request: Answer) -> Answer:
        signum = int(request["signum"])
        if not 0 < signum < signal.NSIG:
            raise BadRequest("there is no signal %d" % signum)
        self._worker.kernel(request).signal(signum, bool(request.get("group")))
        return {}

    def _stop(self, request: Answer) -> Answer:
        if self._starts.cancel(str(request["kernel"])):
            return {}
        kernel = self._worker.kernel(request)
        if kernel.state is State.ENDED:
            return {}
        number = request["answer"]
        kernel.on_ended.append(lambda: self._answers.give(number, {}))
        kernel.end("stopped", float(request.get("grace") or 0))
        raise Later

    def _forget(self, request: Answer) -> Answer:
        self._starts.cancel_choosing(str(request["kernel"]))
        kernel = self._worker.kernels.get(str(request["kernel"]))
        if kernel is None:
            return {}
        if kernel.state is not State.ENDED:
            raise StillRuns(kernel.life)
        self._worker.release(kernel.directory)
        self._worker.take_from_others(kernel, self._listening)
        self._listening.leave(kernel)
        kernel.remove()
        del self._worker.kernels[kernel.id]
        return {}

    def _keep(self, request: Answer) -> Answer:
        kernel = self._worker.kernel(request)
        kernel.facts["keep"] = None if request.get("keep") is None else float(request["keep"])
        kernel.save()
        if not kernel.feeds:
            kernel.count_keep()
        return {}

    def _end(self, request: Answer) -> Answer:
        self._starts.cancel_all()
        running = [kernel for kernel in self._worker.kernels.values() if kernel.state is not State.ENDED]
        if running and request.get("if_idle"):
            raise StillRunning(len(running))
        number = request["answer"]

        def ended() -> None:
            if all(kernel.state is State.ENDED for kernel in self._worker.kernels.values()):
                self._answers.give(number, {})
                self._worker.pump()
                self._worker.loop.later(0.0, self._worker.end)

        for kernel in running:
            kernel.on_ended.append(ended)
            kernel.end("stopped", 5.0)
        if not running:
            ended()
        raise Later
