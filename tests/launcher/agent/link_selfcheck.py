"""Run by old Pythons, with the agent's directory as the argument: two links talk, are cut often, and lose
nothing.

Nothing but the standard library, and the syntax of Python 3.6: the agent's files are imported as the far end
does it.
"""

# ruff: noqa: UP006, UP035 - Python 3.6 has no list[int]

import os
import random
import sys
from typing import Any, Dict, List, Tuple


def main(directory: str) -> None:
    parent, package = os.path.split(os.path.abspath(directory))
    sys.path.insert(0, parent)
    link = __import__(package + ".link", fromlist=["Link"])
    ends = [
        link.Link(role, "ab" * 16, {"python": sys.version}) for role in (link.Role.KEEPER, link.Role.AGENT)
    ]
    for end in ends:
        end.open(1, link.Priority.OUTPUT)
        end.open(2, link.Priority.PORT, True)
    chance = random.Random(5)
    said: Dict[Tuple[int, int], List[bytes]] = {}
    heard: Dict[Tuple[int, int], List[bytes]] = {}
    for turn in range(200):
        for end in ends:
            end.connect(float(turn))
        for _ in range(3):
            who, channel = chance.randrange(2), chance.randrange(3)
            text = bytes(bytearray(chance.randrange(256) for _ in range(chance.choice([1, 50, 3000]))))
            ends[who].send(channel, [text[:7], text[7:]])
            said.setdefault((1 - who, channel), []).append(text)
        move(link, ends, heard, float(turn), chance.randrange(20000) if turn < 199 else 1 << 40)
        for end in ends:
            end.disconnect(float(turn))
    assert {key: b"".join(texts) for key, texts in said.items()} == {
        key: b"".join(texts) for key, texts in heard.items()
    }
    refuse(link)
    print("link works in {}.{}".format(*sys.version_info))


def move(
    link: Any, ends: List[Any], heard: Dict[Tuple[int, int], List[bytes]], now: float, budget: int
) -> None:
    """Move bytes until nothing is left to say or the budget is used up."""
    quiet = 0
    while budget > 0 and quiet < 2:
        quiet += 1
        for who in (0, 1):
            data = b"".join(ends[who].send_buffers(now))[:budget]
            budget -= len(data)
            quiet = 0 if data else quiet
            for event in ends[1 - who].receive(data, now) if data else []:
                if isinstance(event, (link.Message, link.StreamData)):
                    heard.setdefault((1 - who, event.channel), []).append(bytes(event.data))
                    ends[1 - who].consumed(event.channel, len(event.data))
        now += 0.03


def refuse(link: Any) -> None:
    """Whatever the bytes: events or LinkViolation."""
    chance = random.Random(6)
    for _ in range(300):
        end = link.Link(link.Role.AGENT, "ab" * 16, {})
        end.connect(0.0)
        try:
            end.receive(link.Link(link.Role.KEEPER, "ab" * 16, {}).hello(), 0.0)
            for _ in range(5):
                head = bytes(
                    bytearray([0, 0, 0, chance.randrange(9), chance.randrange(10), chance.randrange(5)])
                )
                end.receive(head + bytes(9) + bytes(bytearray([chance.randrange(4)])) + bytes(8), 0.0)
        except link.LinkViolation:
            pass


if __name__ == "__main__":
    main(sys.argv[1])
