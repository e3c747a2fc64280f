"""`farkernel login`, and every command at a terminal that may be asked for a password or a code on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backends import find_backend
from ..configuration import Target
from ..errors import FarkernelError
from .server import BadRequest, ClientConnection, Handler
from .user import Asked, KeeperUser
from .visits import StepFailed, run

Find = Callable[[str], Target]


class NothingToLogIn(FarkernelError):
    kind = "login"

    def __init__(self, target: Target) -> None:
        super().__init__(
            f"{target.name} ({target.address}) is on this machine: there is nothing to log in to",
            f"Use it: farkernel install {target.name}",
        )


class TerminalAnswerer:
    """A client that said `questions`; see `launcher.keeper.user.Answerer`."""

    at_terminal = True
    kernel = ""

    def __init__(self, client: ClientConnection, host: str) -> None:
        self.host = host
        self._client = client

    def asked(self, asked: Asked) -> None:
        question = asked.question
        self._client.event(
            {
                "event": "question",
                "number": asked.number,
                "host": question.host,
                "text": question.text,
                "hidden": question.hidden,
            }
        )

    def settled(self, asked: Asked) -> None:
        self._client.event({"event": "settled", "number": asked.number})


def handlers(user: KeeperUser, find: Find, retry: Callable[[str | None], None]) -> dict[str, Handler]:
    """`questions`: ``target`` → from now on this client is asked what is asked about the target's host.

    `answer`: ``number``, ``text`` (null: declined).  `login`: ``target`` → ``what``, when a command ran there.
    """

    async def questions(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        host = find(str(request.get("target"))).address.host
        if host is not None and ("questions", host) not in client.on_close:
            answerer = TerminalAnswerer(client, host)
            client.on_close["questions", host] = lambda: user.leave(answerer)
            user.join(answerer)
        return {}

    async def answer(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        number, text = request.get("number"), request.get("text")
        if not isinstance(number, int) or not isinstance(text, str | None):
            raise BadRequest("an answer has a number, and a text or null")
        asked = user.open_question(number)
        if asked is None:
            return {"taken": False}
        if text is None:
            asked.decline()
        else:
            asked.answer(text)
        return {"taken": True}

    async def login(client: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
        target = find(str(request.get("target")))
        if target.address.host is None:
            raise NothingToLogIn(target)
        find_backend(target.address.scheme)  # says so at once when there is none
        await questions(client, request)
        after, _, complaint = await run(target, user, "uname -n")
        if not after.strip():
            raise StepFailed(f"it ran nothing: {complaint[-200:]}", "Log in by hand, and see what it says")
        retry(target.address.host)
        return {"what": after.strip().splitlines()[0][:200]}

    return {"questions": questions, "answer": answer, "login": login}
