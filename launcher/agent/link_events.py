"""What a link can be, and what it tells its owner."""

import enum
from typing import Dict, NamedTuple, Set, Union

from .frames import Buffer, LinkError


class Role(enum.Enum):
    """Which end this is."""

    KEEPER = "keeper"
    AGENT = "agent"


class LinkState(enum.Enum):
    """Where a link stands; `MOVES` says what may follow what."""

    DOWN = "down"
    GREETING = "greeting"  # a connection is open, the other side's HELLO has not come
    UP = "up"
    FAILED = "failed"  # the far end broke the rules; final


MOVES: Dict[LinkState, Set[LinkState]] = {
    LinkState.DOWN: {LinkState.GREETING},
    LinkState.GREETING: {LinkState.UP, LinkState.DOWN, LinkState.FAILED},
    LinkState.UP: {LinkState.DOWN, LinkState.FAILED},
    LinkState.FAILED: set(),
}


class LinkStateError(LinkError):
    """The link was used in a way that its state forbids: a mistake on our own side."""

    kind = "link-state"

    def __init__(self, state: LinkState, wanted: str) -> None:
        super().__init__(
            "A link that is {} cannot {}".format(state.value, wanted),
            "This is a mistake in Farkernel: please report it",
        )
        self.state = state


class Connected(NamedTuple):
    """The link is up.  Not `resumed`: of whatever was before, nothing is left but channel 0."""

    resumed: bool


class Message(NamedTuple):
    """A whole message: bytes, or a bytearray or memoryview if it came in several pieces."""

    channel: int
    data: Buffer


class StreamData(NamedTuple):
    """Some bytes of a stream."""

    channel: int
    data: Buffer


class ChannelClosed(NamedTuple):
    """The far end sends nothing more on this channel; our own half is still open."""

    channel: int


class HalfOpen(NamedTuple):
    """Nothing was heard for so long that the connection is given up: close it and connect again."""

    silent_for: float


class Bye(NamedTuple):
    """The far end will not take up this connection again; nothing more comes on it."""

    reason: str


Event = Union[Connected, Message, StreamData, ChannelClosed, HalfOpen, Bye]
