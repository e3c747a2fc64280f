"""What one keeper asks on channel 0 (docs/architecture.md §4): each request is a method in one of these tables."""

import json
from typing import TYPE_CHECKING, Any, Dict, Union

from . import commands
from .acting import Acting
from .answers import Act, Answer, Answers, Later
from .link import Bye, ChannelClosed, Connected, Link, Message, StreamData
from .listening import Listening
from .looking import Looking
from .ports import Ports
from .probes import Programs
from .problems import BadRequest, Problem
from .serial_lines import SerialLines
from .starts import Starts

if TYPE_CHECKING:
    from .worker import Worker


class Requests(object):
    """What one keeper asks over its link, and the channels that it opened there.

    Takes requests apart, does them, and answers; a request that makes no sense gets an answer that says so.
    """

    def __init__(self, worker: "Worker", link: Link) -> None:
        self._worker = worker
        self._link = link
        self._answers = Answers(link, worker.log, worker.pump_soon)
        self.tell = self._answers.tell
        self.listening = Listening(worker, link, self._answers)
        self._ports = Ports(worker.loop, self.tell, worker.pump)
        self._lines = SerialLines(worker.loop, worker.pump)
        programs = Programs(worker.directory)
        starts = Starts(worker, self._answers, programs)
        self._table: Dict[str, Act] = {
            **starts.table(),
            **self.listening.table(),
            **Acting(worker, self._answers, starts, self.listening).table(),
            **Looking(worker, self._answers, programs, starts.clusters).table(),
            "connect": self._connect,
            "reset": self._reset,
            "run": self._run,
            "serial": lambda request: self._lines.open(self._link, request),
            "signals": self._lines.signals,
        }

    def handle(self, event: object) -> None:
        """One event of the link."""
        if isinstance(event, Message):
            if event.channel == 0:
                self._link.consumed(0, len(event.data))
                self.take(bytes(event.data))
            elif not self.listening.to_kernel(event.channel, event.data):
                self._lines.received(self._link, event.channel, event.data)
        elif isinstance(event, ChannelClosed):
            closed = self.listening.closed(event.channel) or self._lines.closed(self._link, event.channel)
            if not closed:
                self._ports.closed(event.channel)
        elif isinstance(event, StreamData):
            self._ports.received(self._link, event.channel, event.data)
        elif isinstance(event, Connected) and not event.resumed:
            self.forget_link()
        elif isinstance(event, Bye):
            self._worker.log("the keeper has gone: %s" % event.reason)

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
            self._answers.refuse(number, do, BadRequest("not a request: %s" % error))
        except Problem as problem:
            self._answers.refuse(number, do, problem)
        else:
            self._answers.settle(number, do, act, request)

    def feed(self) -> None:
        """Whatever waits for room."""
        self.listening.feed()
        self._ports.feed()
        self._lines.feed()

    def forget_link(self) -> None:
        """All channels are gone; the kernels live on."""
        self.listening.forget_link()
        self._ports.abandon()
        self._lines.abandon()

    # -- ports --------------------------------------------------------------------------------------------------

    def _connect(self, request: Answer) -> Answer:
        number = request["answer"]

        def done(outcome: Union[str, Problem]) -> None:
            if isinstance(outcome, Problem):
                self._answers.refuse(number, "connect", outcome)
            else:
                self._answers.give(number, {"address": outcome})

        self._ports.connect(self._link, request, done)
        raise Later

    def _run(self, request: Answer) -> Answer:
        number = request["answer"]

        def done(outcome: Union[str, Problem]) -> None:
            if isinstance(outcome, Problem):
                self._answers.refuse(number, "run", outcome)
            else:
                self._answers.give(number, {"program": outcome})

        commands.run(self._ports, self._link, request, done)
        raise Later

    def _reset(self, request: Answer) -> Answer:
        self._ports.reset(int(request["channel"]))
        return {}
