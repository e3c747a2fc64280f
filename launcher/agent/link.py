"""The link between a keeper and an agent, sans-I/O; the same code at both ends.  docs/architecture.md §2.

A `Link` is a session that outlives its connections.  Whoever owns one moves bytes: what came in goes to
`receive`, what `send_buffers` gives is written, `tick` is called at `deadline`.  Nothing here reads a clock
or a socket.
"""

import os
from typing import Any, Deque, Dict, List, Optional, Sequence

from . import frames
from .channel_table import Channels
from .channels import ChannelError, MessageTooLarge, Priority, Sender
from .credit import Pool
from .flight import ACK_DELAY, Arrivals, Flight
from .flow import GREETING_PATIENCE, Heartbeat, Pings
from .frames import NUMBER, Buffer, Frame, LinkError, LinkViolation, NoCommonVersion
from .link_events import (
    MOVES,
    Bye,
    ChannelClosed,
    Connected,
    Event,
    HalfOpen,
    LinkState,
    LinkStateError,
    Message,
    Role,
    StreamData,
)  # fmt: skip

__all__ = [
    "ACK_DELAY", "Bye", "ChannelClosed", "ChannelError", "Connected", "Event", "HalfOpen", "Link",
    "LinkError", "LinkState", "LinkStateError", "LinkViolation", "Message", "MessageTooLarge",
    "NoCommonVersion", "Priority", "Role", "StreamData",
]  # fmt: skip

WRITE_SIZE = 256 * 1024


class Link:
    """One end of a link.

    Errors: `LinkViolation` from `receive` and `tick` means that the far end cannot be trusted: drop the
    connection and the link.  `LinkStateError` and `ChannelError` are mistakes of our own side,
    `MessageTooLarge` is for the user.

    `awaiting` may be set while the owner waits for an answer: silence is then noticed sooner.
    """

    def __init__(self, role: Role, session: str, about: Dict[str, Any], max_message: int = 1 << 30) -> None:
        if max_message < 1:
            raise ValueError("max_message must be at least 1")
        self.role = role
        self.session = frames.check_session(session)
        self.state = LinkState.DOWN
        self.peer: Dict[str, Any] = {}
        self.awaiting = False
        self._about = about
        self._max_message = max_message
        self._peer_max = max_message  # until the other side has said what it takes
        self._past = False  # whether the link was up before
        # Names this agent's memory of the session; a keeper sends back the one that it knows.  So both see
        # alike whether they can go on, also when the answer to a HELLO was lost.
        self._life = os.urandom(8).hex() if role is Role.AGENT else ""
        self._violation: Optional[LinkViolation] = None
        self._begin_session()
        self._begin_connection(0.0)

    def _begin_session(self) -> None:
        self._pool = Pool(self._max_message)
        self._channels = Channels(self._pool)
        self._flight = Flight()
        self._arrivals = Arrivals()

    def _begin_connection(self, now: float) -> None:
        self._reader = frames.FrameReader()
        self._flight.reconnect(now)
        self._heartbeat = Heartbeat(now)
        self._since = now
        self._greeting = False  # HELLO has to go out
        self._known = (
            False  # an agent: the keeper's HELLO named our life; both: the far end spoke after HELLO
        )
        self._pings = Pings()
        self._bye: Optional[bytes] = None
        self._parted = False  # BYE has gone out
        self._left = False  # BYE has come in

    def __repr__(self) -> str:
        flight = self._flight
        backlog = sum(channel.sender.backlog for channel in self._channels)
        return (
            "<Link {} {} {}: sent {}, acked {}, received {}, window {}, in flight {}, backlog {}, held {}>"
        ).format(
            self.role.value, self.session[:8], self.state.value, flight.last, flight.acknowledged,
            self._arrivals.received, flight.window.size, flight.window.in_flight, backlog, self.held,
        )  # fmt: skip

    @property
    def held(self) -> int:
        """Bytes that the far end makes us hold: parts of frames and messages, and what was not consumed."""
        return self._reader.held + self._pool.held

    @property
    def hold_limit(self) -> int:
        """The most that `held` can be with the channels open now, whatever the far end does."""
        return frames.MAX_FRAME + self._pool.limit([channel.receiver for channel in self._channels])

    # -- connections

    def hello(self) -> bytes:
        """The encoded HELLO frame (a keeper puts it into its boot script)."""
        return frames.encode_hello(
            self.session, self._life, self._arrivals.received, self._known, self._max_message, self._about
        )

    def connect(self, now: float, hello_sent: bool = False) -> None:
        """A connection is open.  A keeper says HELLO first, unless the boot script did; an agent answers."""
        self._move(LinkState.GREETING)
        self._begin_connection(now)
        self._greeting = self.role is Role.KEEPER and not hello_sent

    def disconnect(self, now: float) -> None:
        """The connection is gone; what was not acknowledged will be replayed.  No-op if there is none."""
        if self.state in (LinkState.GREETING, LinkState.UP):
            self._move(LinkState.DOWN)
            self._begin_connection(now)

    def bye(self, reason: str) -> None:
        """Say that this connection will not be taken up again; nothing follows.  No-op if there is none."""
        if self.state in (LinkState.GREETING, LinkState.UP):
            self._bye = frames.encode_bye(reason)

    def _move(self, state: LinkState) -> None:
        if state not in MOVES[self.state]:
            raise LinkStateError(self.state, "become {}".format(state.value))
        self.state = state

    # -- channels

    def open(self, channel: int, priority: int, stream: bool = False) -> None:
        """Both ends do this, having agreed on channel 0.  A number is free again when both halves are closed
        and everything that came is consumed.
        """
        self._must_not_have_failed("open a channel")
        self._channels.open(channel, Priority(priority), stream)

    def unused_channel(self) -> int:
        """A number that is not open here; numbers come round as late as possible."""
        return self._channels.unused()

    def send(self, channel: int, buffers: Sequence[Buffer]) -> None:
        """Queue one message (or some bytes, if stream).  References are kept until it is acknowledged: do not
        change what they refer to.
        """
        self._must_not_have_failed("send")
        sender = self._channels.get(channel).sender
        sender.queue(buffers, self._peer_max)
        self._channels.make_ready(sender)

    def close(self, channel: int) -> None:
        """No more will be sent on it; what is queued still goes."""
        self._must_not_have_failed("close a channel")
        self._channels.close(channel)

    def backlog(self, channel: int) -> int:
        """Bytes queued and not yet sent once: feed more when it is low."""
        return self._channels.get(channel).sender.backlog

    def consumed(self, channel: int, size: int) -> None:
        """The receiver has dealt with that many bytes of payload, also after `ChannelClosed`: credit goes
        back.

        On a channel that is gone this does nothing.  More than was given out is a ValueError.
        """
        entry = self._channels.find(channel)
        if entry is not None:
            entry.receiver.consume(size)
            self._channels.finish(channel)

    def _must_not_have_failed(self, wanted: str) -> None:
        if self.state is LinkState.FAILED:
            raise LinkStateError(self.state, wanted)

    # -- time

    def deadline(self) -> Optional[float]:
        """When `tick` wants to be called."""
        if self._violation is not None:
            return None if self.state is LinkState.FAILED else self._since
        if self.state is LinkState.GREETING:
            return self._since + GREETING_PATIENCE
        if self.state is not LinkState.UP:
            return None
        silence = self._heartbeat.deadline(self._busy())
        return min(silence, self._arrivals.deadline())

    def tick(self, now: float) -> List[Event]:
        """Time has passed.  Raises `LinkViolation` if `receive` came upon one behind good frames."""
        if self._violation is not None and self.state is not LinkState.FAILED:
            self._fail(self._violation)
        if self.state is LinkState.GREETING and now >= self._since + GREETING_PATIENCE:
            silent, self._since = now - self._since, now
            return [HalfOpen(silent)]
        if self.state is not LinkState.UP:
            return []
        self._arrivals.tick(now)
        silent_for = self._heartbeat.silent(now, self._busy())
        if silent_for is not None:
            return [HalfOpen(silent_for)]
        if self._heartbeat.ask(now, self._busy()):
            self._pings.ask()
        return []

    def _busy(self) -> bool:
        return self.awaiting or bool(self._flight)

    # -- what goes out

    def has_output(self) -> bool:
        """Whether `send_buffers` would give something (in the present window)."""
        if self._greeting:
            return True
        if self.state is not LinkState.UP or self._parted or self._violation is not None:
            return False
        if self._arrivals.ack_due or self._pings.waiting or self._bye is not None:
            return True
        window = self._flight.window
        if self._flight.must_replay:
            return window.has_room()
        if self._pool.due or self._channels.ready[0]:
            return window.has_room(urgent=True)
        return window.has_room() and any(self._channels.ready)

    def send_buffers(self, now: float, limit: int = WRITE_SIZE) -> List[Buffer]:
        """What to write now, fit for `os.writev`: about `limit` bytes at most, none if there is nothing."""
        out = frames.Gathered()
        if self._greeting:
            self._greeting = False
            out.add(self.hello(), (), 0)
        if self.state is LinkState.UP and not self._parted and self._violation is None:
            self._pings.put(now, out)
            if self._bye is None:
                self._put_sequenced(now, limit, out)
                self._arrivals.put_ack(now, out)
            else:
                out.add(self._bye, (), 0)
                self._parted = True
        return out.buffers()

    def _put_sequenced(self, now: float, limit: int, out: frames.Gathered) -> None:
        flight = self._flight
        window = flight.window
        if not flight.replay(now, limit, out):
            return
        due = self._pool.due
        while due and out.size < limit and window.has_room(urgent=True):
            number, receiver = due.popitem()
            life = self._channels.get(number).life & 0xFF
            flight.put(frames.CREDIT, life, number, (NUMBER.pack(receiver.allowed),), NUMBER.size, now, out)
        urgent = True
        for ready in self._channels.ready:
            while ready and out.size < limit and window.has_room(urgent):
                self._put_next(ready, now, out)
            urgent = False

    def _put_next(self, ready: Deque[Sender], now: float, out: frames.Gathered) -> None:
        """One frame of the channel whose turn it is."""
        sender = ready.popleft()
        number = sender.number
        if sender.must_close():
            sender.closed = sender.ready = True  # and stays ready: it has nothing to send any more
            self._flight.put(frames.CLOSE, 0, number, (), 0, now, out)
            self._channels.finish(number)
            return
        flags, parts, size = sender.next_piece(self._flight.window.piece)
        self._flight.put(frames.DATA, flags, number, parts, size, now, out)
        if sender.can_send():
            ready.append(sender)
        else:
            sender.ready = False

    # -- what comes in

    def receive(self, data: Buffer, now: float) -> List[Event]:
        """Bytes came in, in any portions.

        Raises `LinkViolation`, and nothing else whatever the bytes.  What was good before a violation is
        given out first; then the next call of `receive` or `tick` raises (`deadline` asks for it at once).
        """
        if self._violation is not None:
            self._fail(self._violation)
        if self.state not in (LinkState.GREETING, LinkState.UP):
            raise LinkStateError(self.state, "receive")
        if self._left or not len(data):
            return []
        events: List[Event] = []
        self._heartbeat.heard(now)
        try:
            for frame in self._reader.feed(data):
                self._take(frame, now, events)
                if self._left:
                    break
        except LinkViolation as violation:
            self._violation = violation
            if not events:
                self._fail(violation)
        return events

    def _fail(self, violation: LinkViolation) -> None:
        if self.state is not LinkState.FAILED:
            self._move(LinkState.FAILED)
        raise violation

    def _take(self, frame: Frame, now: float, events: List[Event]) -> None:
        kind = frame.kind
        if not self._known:
            if self.state is LinkState.GREETING:
                self._greet(frame, now, events)
                return
            self._must_be_known()
        if frame.number:
            if self._arrivals.take(frame, now):
                self._take_sequenced(frame, events)
        elif kind == frames.ACK:
            self._flight.acknowledge(NUMBER.unpack(frame.payload)[0], now)
        elif kind == frames.PING:
            self._pings.answer(bytes(frame.payload))
        elif kind == frames.PONG:
            round_trip = self._pings.take_pong(frame.payload, now)
            if round_trip is not None:
                self._flight.window.measured(round_trip, now)
        elif kind == frames.BYE:
            events.append(Bye(frames.read_bye(frame.payload)))
            self._left = True
        else:
            raise LinkViolation("a second HELLO")

    def _take_sequenced(self, frame: Frame, events: List[Event]) -> None:
        kind, flags, number, _, payload = frame
        channel = self._channels.find(number)
        if kind == frames.DATA and channel is not None:
            data = channel.receiver.accept(flags, payload)
            if data is not None:
                events.append((StreamData if channel.receiver.stream else Message)(number, data))
        elif kind == frames.CREDIT and self._channels.was_open(number):
            # It may be for an earlier life of the number: it was on its way when the channel was closed.
            if channel is not None and flags == channel.life & 0xFF:
                channel.sender.allow(NUMBER.unpack(payload)[0])
                self._channels.make_ready(channel.sender)
        elif kind == frames.CLOSE and channel is not None and number:
            channel.receiver.close()
            events.append(ChannelClosed(number))
            self._channels.finish(number)
        else:
            raise LinkViolation("a frame of type {} for channel {}, which is not open".format(kind, number))

    def _greet(self, frame: Frame, now: float, events: List[Event]) -> None:
        if frame.kind != frames.HELLO:
            raise LinkViolation("a frame of type {} before HELLO".format(frame.kind))
        hello = frames.read_hello(frame.payload)
        self.peer = hello
        keeper = self.role is Role.KEEPER
        self._greeting = not keeper  # also when there is no common version: then both can say so
        if not set(frames.VERSIONS) & set(hello["version"]):
            raise NoCommonVersion("agent" if keeper else "keeper", frames.VERSIONS, hello["version"])
        if hello["session"] != self.session:
            raise LinkViolation("the HELLO of another session")
        if keeper:
            self._meet_agent(hello, now)
        else:
            self._meet_keeper(hello)
        self._take_max_message(hello["max_message"])
        self._move(LinkState.UP)
        self._pings.ask()  # the first round trip, before any queue has formed
        events.append(Connected(self._past and (hello["resumed"] or not keeper)))
        self._past = True

    def _meet_agent(self, hello: Dict[str, Any], now: float) -> None:
        """An agent answered: it goes on with what it knows, or is a new one that knows nothing."""
        if not hello["life"] or hello["resumed"] != (hello["life"] == self._life):
            raise LinkViolation("an agent that contradicts itself")
        if self._past and not hello["resumed"]:
            self._begin_session()
            self._flight.reconnect(now)
        self._life = hello["life"]
        self._flight.settle(hello["received"], exactly=True)

    def _meet_keeper(self, hello: Dict[str, Any]) -> None:
        """A keeper connects; its HELLO may have been made long ago, in a boot script that hung."""
        self._known = hello["life"] == self._life
        if self._known:
            self._flight.settle(hello["received"], exactly=False)

    def _must_be_known(self) -> None:
        """To a keeper that does not know us nothing can have been said, nor can we have heard anything."""
        if (
            self.role is Role.AGENT
            and not self._known
            and (self._arrivals.received or self._flight.acknowledged)
        ):
            raise LinkViolation("a keeper that has forgotten what was said")
        self._known = True

    def _take_max_message(self, most: int) -> None:
        if most < self._peer_max:
            for channel in self._channels:
                if not channel.sender.stream and channel.sender.largest() > most:
                    raise LinkViolation(
                        "it takes no more than {} bytes, and a larger message is queued".format(most)
                    )
        self._peer_max = most
