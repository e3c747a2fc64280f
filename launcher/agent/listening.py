"""A kernel's four channels on one keeper's link, and journals: what the keeper listens to and tells a kernel."""

import os
import struct
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

from . import records
from .answers import Act, Answer, Answers
from .feeds import Feed
from .frames import Buffer
from .kernels import CONNECTION, Kernel, State
from .link import ChannelError, Link, Priority
from .problems import BadRequest, NoSuchKernel
from .sockets import CONTROL, IOPUB, NAMES, SHELL, STDIN

if TYPE_CHECKING:
    from .worker import Worker

_REQUEST = struct.Struct(">Q")
_PRIORITIES = {
    CONTROL: Priority.CONTROL,
    SHELL: Priority.SHELL,
    STDIN: Priority.STDIN,
    IOPUB: Priority.OUTPUT,
}
#: As long as more than that waits for a kernel that does not read, the keeper gets no credit back.
_MOST_WAITING = 16 << 20


class Listening(object):
    """Which kernels this keeper has attached, each by the channels that it opened for it."""

    def __init__(self, worker: "Worker", link: Link, answers: Answers) -> None:
        self._worker = worker
        self._link = link
        self._answers = answers
        self._kernels: Dict[int, Kernel] = {}  # by channel
        self._journals: List[Feed] = []
        self._unpaid: List[Tuple[Kernel, str, int, int]] = []

    def table(self) -> Dict[str, Act]:
        return {
            "attach": self._attach,
            "adopt": self._adopt,
            "detach": self._detach,
            "received": self._received,
            "journal": self._journal,
        }

    # -- what is asked ------------------------------------------------------------------------------------------

    def _attach(self, request: Answer) -> Answer:
        kernel, link = self._worker.kernel(request), self._link
        channels = {str(name): int(number) for name, number in dict(request["channels"]).items()}
        received = {str(name): int(number) for name, number in dict(request.get("received") or {}).items()}
        if not set(channels) <= set(NAMES):
            raise BadRequest("a kernel has only these channels: %s" % ", ".join(NAMES))
        self._worker.take_from_others(kernel, self)
        self.leave(kernel)
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
        kernel = self._worker.kernel(request)
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
        kernel = self._worker.kernel(request)
        self.leave(kernel)
        return {}

    def _received(self, request: Answer) -> Answer:
        kernel = self._worker.kernel(request)
        for name, number in dict(request["numbers"]).items():
            if name in kernel.sockets:
                kernel.sockets[name].tape.received = int(number)
        return {}

    def _journal(self, request: Answer) -> Answer:
        kernel, link = self._worker.kernel(request), self._link
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

    # -- who has a kernel ---------------------------------------------------------------------------------------

    def has(self, kernel: Kernel) -> bool:
        """Whether that kernel is attached here."""
        return any(self._kernels.get(number) is kernel for number in kernel.channels.values())

    def taken(self, kernel: Kernel, by: Answer) -> None:
        """Another keeper of the same user attaches it."""
        self.leave(kernel)
        self._answers.tell({"event": "taken", "kernel": kernel.id, "by": by})

    def leave(self, kernel: Kernel) -> None:
        """It goes on, but not on our channels."""
        if self.has(kernel):
            for number in kernel.channels.values():
                self._kernels.pop(number, None)
            kernel.detach(self._link)

    # -- what comes and goes ------------------------------------------------------------------------------------

    def to_kernel(self, channel: int, data: Buffer) -> bool:
        """A request for the kernel itself: its number, then the encoded message.  False: no kernel's channel."""
        kernel = self._kernels.get(channel)
        if kernel is None:
            return False
        name = next((name for name, number in kernel.channels.items() if number == channel), IOPUB)
        if len(data) > _REQUEST.size and name != IOPUB and kernel.state is not State.ENDED:
            number = _REQUEST.unpack_from(data)[0]
            kernel.sockets[name].tell([memoryview(data)[_REQUEST.size :]], number)
        self._pay(kernel, name, channel, len(data))
        return True

    def _pay(self, kernel: Kernel, name: str, channel: int, size: int) -> None:
        if kernel.state is not State.ENDED and kernel.sockets[name].waiting > _MOST_WAITING:
            self._unpaid.append((kernel, name, channel, size))
            self._worker.loop.later(0.05, self._worker.pump)
        else:
            self._link.consumed(channel, size)

    def closed(self, channel: int) -> bool:
        """The keeper sends no more on it.  False: it is neither a kernel's nor a journal's."""
        kernel = self._kernels.pop(channel, None)
        if kernel is not None:
            kernel.detach_one(channel)
            return True
        journals = [feed for feed in self._journals if feed.channel == channel]
        for feed in journals:
            feed.close()  # it does not want the rest
        return bool(journals)

    def feed(self) -> None:
        """Whatever waits for room: journals in the link, and the keeper for a kernel to read."""
        for feed in list(self._journals):
            feed.feed()
            if feed.closed:
                self._journals.remove(feed)
        unpaid, self._unpaid = self._unpaid, []
        for kernel, name, channel, size in unpaid:
            self._pay(kernel, name, channel, size)

    def forget_link(self) -> None:
        """All channels are gone; the kernels live on."""
        kernels, self._kernels = set(self._kernels.values()), {}
        for kernel in kernels:
            kernel.detach(None)
        del self._journals[:]
        del self._unpaid[:]

    def link_is_away(self) -> None:
        """Its connection is gone, and may come again: `keep` counts meanwhile."""
        for kernel in set(self._kernels.values()):
            kernel.count_keep()

    def link_is_back(self) -> None:
        for kernel in set(self._kernels.values()):
            kernel.stop_keep_while_attached()


def _nothing(first: int, last: int, size: Optional[int]) -> None:
    """A journal says by its numbers what it has not got."""
