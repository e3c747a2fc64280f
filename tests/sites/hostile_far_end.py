"""A far end that means harm, for sshd's ForceCommand: `python hostile_far_end.py HOW`.

It reads the boot script as a shell would, and then answers as no agent of ours ever did.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from farkernel.launcher.agent import frames
from farkernel.launcher.agent.link import Link, Message, Role

ESCAPES = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b5n\x08\r"
CLIMB = "../../../../../../../../"


def boot_words() -> list[str]:
    """Nonce, sha256, size, allocation, HELLO."""
    script = b""
    while not script.endswith(b"exit 1\n"):
        piece = os.read(0, 65536)
        if not piece:
            sys.exit(0)
        script += piece
        if script.endswith(b"\nexit\n"):  # not the agent's, but one of `farkernel doctor`
            mark = script.split()[1]
            write(mark + b"\n" + ESCAPES.encode() + b"\nfound " + ESCAPES.encode() + b"\n")
            sys.exit(0)
    found = re.search(r"^FARKERNEL_BOOT='(.*)'$", script.decode(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def endless() -> None:
    """What a start-up file with a loop prints."""
    while True:
        write(ESCAPES.encode() * 500 + b"\n")


def escapes() -> None:
    """Words for a terminal, and an end."""
    boot_words()
    os.write(2, f"{ESCAPES} no entry {ESCAPES}\n".encode())
    sys.exit(3)


def refusal() -> None:
    """An error in the loader's own form."""
    nonce = boot_words()[0]
    about = {"kind": "x" * 500, "what": f"{ESCAPES} no room {ESCAPES}" * 50, "advice": ESCAPES, "final": True}
    write(f"{nonce} error {json.dumps(about)}\n".encode())


def oversized() -> None:
    """A frame that says it is 4 GB, and what seems to be its beginning."""
    nonce = boot_words()[0]
    write(f"{nonce} link {{}}\n".encode())
    write(frames.HEADER.pack(0xFFFFFFFF, frames.DATA, 3, 0, 1))
    while True:
        write(bytes(1 << 20))


def huge_message() -> None:
    """Good frames, of a message that is to have 2^60 bytes."""
    link = linked()
    link.receive(b"", time.monotonic())
    first = frames.encode(frames.DATA, (1 << 60).to_bytes(8, "big") + bytes(1000), 1, 0, 1)
    flush(link)
    write(first)
    number = 2
    while True:
        write(frames.encode(frames.DATA, bytes(65536), 0, 0, number))
        number += 1


def linked() -> Link:
    nonce, _, _, _, hello = boot_words()
    link = Link(
        Role.AGENT, frames.open_hello(base64.b64decode(hello))["session"], {"host": ESCAPES, "pid": -1}
    )
    link.connect(time.monotonic())
    link.receive(base64.b64decode(hello), time.monotonic())
    write(f"{nonce} link {{}}\n".encode())
    return link


def flush(link: Link) -> None:
    while link.has_output():
        for part in link.send_buffers(time.monotonic()):
            write(bytes(part))


def lies() -> None:
    """Answers every request in the right form, with content that climbs, paints, and makes no sense."""
    link = linked()
    for word in (
        b"null",
        b"[]",
        b'{"event": []}',
        b'{"event": "dropped"}',
        b'{"id": [], "ok": 1}',
        b"\xff" * 99,
    ):
        link.send(0, [word])
    while True:
        flush(link)
        data = os.read(0, 65536)
        if not data:
            return
        for event in link.receive(data, time.monotonic()):
            if isinstance(event, Message) and event.channel == 0:
                request = json.loads(bytes(event.data))
                if "id" in request:
                    answer = {"id": request["id"], "ok": answers(request)}
                    link.send(0, [json.dumps(answer).encode()])


def answers(request: dict[str, Any]) -> dict[str, Any]:
    row = {
        "name": f"{CLIMB}tmp/{ESCAPES}climbed",
        "display_name": f"Python {ESCAPES}",
        "language": f"python{ESCAPES}",
        "path": f"{CLIMB}etc/{ESCAPES}",
        "program": f"/bin/{ESCAPES}",
        "kind": ESCAPES,
        "version": ESCAPES,
        "kernel": True,
    }
    picture = base64.b64encode(b"<svg onload='alert(1)'/>").decode()
    told: dict[str, dict[str, Any]] = {
        "scan": {"kernelspecs": [row, None, {"name": []}], "environments": [row, 7], "complete": True},
        "look": {
            "argv": [ESCAPES],
            "program": ESCAPES,
            "directory": f"{CLIMB}tmp",
            "display_name": ESCAPES,
            "language": f"py{ESCAPES}",
            "logos": {f"{CLIMB}climbed.svg": picture, "logo-svg.svg": "no base64", "logo-64x64.png": 5},
        },
        "list": {
            "kernels": [
                {
                    "kernel": f"{CLIMB}{ESCAPES}",
                    "state": ESCAPES,
                    "label": {"entry": ESCAPES, "host": ESCAPES},
                },
                {"kernel": ["x"], "label": 3},
                "no row",
            ]
        },
        "start": {"pid": "x", "interrupt": ESCAPES, "cwd": f"{CLIMB}{ESCAPES}"},
        "attach": {
            "state": "ended",
            "reason": {"kind": [], "text": ESCAPES, "tail": ESCAPES},
            "first": {"shell": []},
        },
        "log": {"text": ESCAPES},
    }
    return told.get(request["do"], {})


if __name__ == "__main__":
    WAYS: dict[str, Callable[[], None]] = {
        each.__name__: each for each in (endless, escapes, refusal, oversized, huge_message, lies)
    }
    try:
        WAYS[sys.argv[1]]()
    except BrokenPipeError:
        os._exit(0)
