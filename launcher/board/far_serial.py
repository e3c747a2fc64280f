"""A serial device of another machine, through the agent there (`launcher.agent.serial_lines`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...backends.contract import Buffer, Receiver
from ..agent.channels import Priority
from ..errors import FarkernelError
from .contract import SerialOptions
from .errors import BoardError, BoardGone, BoardUnreachable
from .serial_line import pause_of


class Agent(Protocol):
    """What is needed of `keeper.far_agent.FarAgent`."""

    async def request(self, do: str, **arguments: Any) -> dict[str, Any]: ...
    def open_channel(
        self,
        priority: Priority,
        reader: Callable[[Buffer], None],
        stream: bool = False,
        lost: Callable[[], None] | None = None,
    ) -> int: ...
    def close_channel(self, channel: int) -> None: ...
    def forget_channels(self, channels: Sequence[int]) -> None: ...
    def send(self, channel: int, buffers: Sequence[Buffer]) -> None: ...
    def consumed(self, channel: int, size: int) -> None: ...


class FarProblem(BoardError):
    """What the agent there says about the device, in its words."""

    def __init__(self, kind: str, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.remote_kind = kind

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.remote_kind, "what": self.what, "advice": self.advice}


class FarSerial:
    """A `contract.Transport`.  ``path`` is a device there, or ``/usb/VID:PID[/SERIAL]``."""

    windowed = True
    pause = 0.0  # the agent makes the pauses, where the line is

    def __init__(
        self, agent: Agent, host: str, path: str, options: SerialOptions | None = None, purpose: str = ""
    ) -> None:
        self._agent = agent
        self._host = host
        self._path = path
        self._options = options or SerialOptions()
        self._purpose = purpose  # what others are told who want it too
        self._receiver: Receiver | None = None
        self._channel: int | None = None

    def __repr__(self) -> str:
        return f"<FarSerial {self.describe()}, {'open' if self.is_open else 'closed'}>"

    def describe(self) -> str:
        return f"{self._path} on {self._host}"

    @property
    def is_open(self) -> bool:
        return self._receiver is not None

    @property
    def buffered(self) -> int:
        return 0  # what the link holds is sent again if need be: nobody has to wait for it

    async def open(self, receiver: Receiver) -> None:
        self._receiver = receiver
        channel = self._channel = self._agent.open_channel(Priority.PORT, self._received, lost=self._lost)
        options = self._options
        try:
            await self._agent.request(
                "serial",
                channel=channel,
                path=self._path,
                baud=options.baud,
                dtr=options.dtr,
                rts=options.rts,
                purpose=self._purpose,
                pause=pause_of(options.baud),
            )
        except FarkernelError as error:
            self._agent.forget_channels([channel])
            self._channel = self._receiver = None
            raise self._translated(error) from error
        except BaseException:
            self.close()
            raise

    def _translated(self, error: FarkernelError) -> BoardError:
        kind = error.as_dict()["kind"]
        if kind == BoardGone.kind:
            return BoardGone(self.describe())
        if kind.startswith("board-"):
            return FarProblem(kind, error.what, error.advice)
        return BoardUnreachable(f"{self.describe()} cannot be reached: {error.what}", error.advice)

    def write(self, data: bytes) -> None:
        if self._channel is not None and data:
            self._agent.send(self._channel, [b"w" + data])

    def paste(self, code: bytes) -> None:
        if self._channel is not None:
            self._agent.send(self._channel, [b"p" + code])

    async def signals(self, dtr: bool | None, rts: bool | None) -> None:
        if self._channel is None:
            raise BoardGone(self.describe())
        try:
            await self._agent.request("signals", channel=self._channel, dtr=dtr, rts=rts)
        except FarkernelError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        channel, self._channel = self._channel, None
        self._receiver = None
        if channel is not None:
            self._agent.close_channel(channel)

    def _received(self, data: Buffer) -> None:
        if self._channel is None:
            return
        if not data:
            self._ended("it was unplugged")
            return
        self._agent.consumed(self._channel, len(data))
        if self._receiver is not None:
            self._receiver.data_received(bytes(data))

    def _lost(self) -> None:
        self._ended(f"the link to {self._host} was lost")

    def _ended(self, why: str) -> None:
        receiver = self._receiver
        self.close()
        if receiver is not None:
            receiver.closed(why)
