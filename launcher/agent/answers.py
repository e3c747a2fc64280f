"""Answers to what a keeper asks on channel 0, and events: one object for each keeper's link."""

import json
from typing import Any, Callable, Dict

from .link import Link
from .log import Log
from .problems import BadRequest, Problem

Answer = Dict[str, Any]
Act = Callable[[Answer], Answer]


class Later(Exception):
    """The answer will be given by the function that this was raised with."""


class Answers(object):
    """``soon``: is called when something waits to go out."""

    def __init__(self, link: Link, log: Log, soon: Callable[[], None]) -> None:
        self._link = link
        self._log = log
        self._soon = soon

    def tell(self, message: Answer) -> None:
        """An answer or an event, for this keeper."""
        self._link.send(0, [json.dumps(message, separators=(",", ":")).encode("utf-8")])
        self._soon()

    def give(self, number: Any, answer: Answer) -> None:
        """To the request of that number; None: to one that wants no answer."""
        if number is not None:
            self.tell({"id": number, "ok": answer})

    def refuse(self, number: Any, do: str, problem: Problem) -> None:
        self._log("%s: %s" % (do, problem))
        if number is not None:
            self.tell({"id": number, "error": problem.as_dict()})

    def settle(self, number: Any, do: str, act: Act, request: Answer) -> None:
        """Do what is asked, and say what came of it, whatever that is."""
        try:
            self.give(number, act(request))
        except Later:
            pass
        except Problem as problem:
            self.refuse(number, do, problem)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            wrong = "%s: bad arguments (%s: %s)" % (do, type(error).__name__, error)
            self.refuse(number, do, BadRequest(wrong))
        except OSError as error:
            self._log.failure(do)
            self.refuse(number, do, Problem("%s failed at the far end: %s" % (do, error), ""))
