"""Throws inputs at the link and sees that it holds: any bytes give events or a LinkViolation, within its
bound.

python scripts/fuzz_link.py [--inputs N] [--seed S]        (scripts/test --long runs it)

An input is one portion of bytes given to a link that is up: frames of a real exchange with bytes changed,
frames made up with fitting sequence numbers, and noise.  The seed is printed, so that a find can be had
again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator

from farkernel.launcher.agent import frames
from farkernel.launcher.agent.frames import ACK, BYE, CLOSE, CREDIT, DATA, PING, PONG, encode
from farkernel.launcher.agent.link import Link, LinkState, LinkViolation, Message, Priority, Role, StreamData

SESSION = "5a" * 16
MAX_MESSAGE = 1 << 20
CHANNELS = {1: Priority.SHELL, 2: Priority.STDIN, 3: Priority.OUTPUT, 4: Priority.OUTPUT, 5: Priority.PORT}
NUMBERS = [
    0,
    1,
    2,
    127,
    65_536,
    65_537,
    1 << 20,
    (1 << 20) + 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
SIZES = [0, 1, 8, 9, 100, 1023, 1024, 9000, 65_408, 65_409]
SAID = bytes(range(256)) * 300


def new_link(role: Role) -> Link:
    link = Link(role, SESSION, {}, MAX_MESSAGE)
    for channel, priority in CHANNELS.items():
        link.open(channel, priority, priority is Priority.PORT)
    link.connect(0.0)
    return link


def greeting(link: Link) -> bytes:
    life = "" if link.role is Role.AGENT else "0" * 16
    return frames.encode_hello(SESSION, life, 0, False, MAX_MESSAGE, {"host": "somewhere"})


class Attack:
    """One link under attack: `inputs` are thrown at it until it fails or has had enough."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.link = new_link(chance.choice(list(Role)))
        self.now = 0.0
        self.sent = 0  # sequenced frames sent to it
        self.given: list[tuple[int, int]] = []
        if chance.random() < 0.98:
            self.link.receive(greeting(self.link), self.now)

    def inputs(self) -> Iterator[bytes]:
        for _ in range(self.chance.randrange(1, 60)):
            data = b"".join(self.frame() for _ in range(self.chance.choice([1, 1, 1, 2, 5])))
            if self.chance.random() < 0.04:
                data = self.damaged(data)
            cut = self.chance.randrange(len(data) + 1) if self.chance.random() < 0.2 else len(data)
            yield data[:cut]
            if cut < len(data):
                yield data[cut:]

    def frame(self) -> bytes:
        chance = self.chance
        kind = chance.choice([DATA] * 12 + [CREDIT, ACK, ACK, PING, PONG])
        if chance.random() < 0.01:
            kind = chance.choice([BYE, CLOSE, frames.HELLO, 0, 9])
        channel = chance.choice([0, *CHANNELS])
        if kind == DATA:
            return self.data(channel)
        number = chance.choice(NUMBERS) if chance.random() < 0.02 else 0
        if kind == CREDIT:
            self.sent += 1
            return encode(kind, frames.NUMBER.pack(number or 65_536), 0, channel, self.sent)
        if kind == CLOSE:
            self.sent += 1
            return encode(kind, b"", 0, channel or 1, self.sent)
        if kind == BYE:
            return encode(kind, b'{"reason": "over"}')
        return encode(kind, frames.NUMBER.pack(number))

    def data(self, channel: int) -> bytes:
        chance = self.chance
        flags = chance.choice([3] * 20 + [3 | 4, 3 | 8]) if chance.random() < 0.97 else chance.randrange(16)
        self.sent += 1
        repeated = chance.random() < 0.02
        number = chance.randrange(1, self.sent + 1) if repeated else self.sent
        if repeated:
            self.sent -= 1
        size = chance.choice(SIZES[:6] if chance.random() < 0.95 else SIZES)
        if flags & 3 == 1:
            return encode(
                DATA, frames.NUMBER.pack(chance.choice(NUMBERS)) + SAID[:size], flags, channel, number
            )
        return encode(DATA, SAID[:size], flags, channel, number)

    def damaged(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.chance.choice([1, 1, 2, 8])):
            changed[self.chance.randrange(len(changed))] = self.chance.randrange(256)
        return bytes(changed)

    def throw(self, data: bytes) -> bool:
        """One input; whether the link is still worth attacking."""
        link, chance = self.link, self.chance
        self.now += chance.choice([0.0, 0.001, 0.05, 4.0])
        try:
            for event in link.receive(data, self.now):
                if isinstance(event, Message | StreamData):
                    self.given.append((event.channel, len(event.data)))
            assert link.held <= link.hold_limit, f"{link!r} holds more than {link.hold_limit}"
            if self.given and chance.random() < 0.7:
                link.consumed(*self.given.pop(0))
            if chance.random() < 0.1:
                link.send(chance.choice([0, 1, 3]), [SAID[: chance.choice(SIZES)]])
            link.tick(self.now)
            link.send_buffers(self.now)
        except LinkViolation:
            assert link.state is LinkState.FAILED
            return False
        return True


def fuzz(inputs: int, seed: int) -> tuple[int, int]:
    """Returns how many inputs were thrown and how many links failed under them."""
    chance = random.Random(seed)
    thrown = failed = 0
    while thrown < inputs:
        attack = Attack(chance)
        for data in attack.inputs():
            thrown += 1
            if not attack.throw(data):
                failed += 1
                break
    return thrown, failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Throw inputs at the link.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    began = time.perf_counter()
    thrown, failed = fuzz(arguments.inputs, seed)
    seconds = time.perf_counter() - began
    print(
        f"{thrown:,} inputs in {seconds:.0f} s, {thrown / seconds:,.0f}/s; {failed:,} links refused what they got"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
