"""What the kernel says about itself."""

from __future__ import annotations

from typing import Any

from ... import __version__
from ..text import one_line
from .held import HeldBoard


def kernel_info(held: HeldBoard | None) -> dict[str, Any]:
    """The content of `kernel_info_reply`, with board and firmware where they are known."""
    info = held.info if held else None
    language = one_line(info.implementation).lower() if info else "micropython"
    version = ".".join(map(str, info.version)) if info else ""
    facts: dict[str, Any] = {}
    if held is not None:
        facts = {"name": held.name, "address": str(held.address), "state": held.board.state.value}
        if info is not None:
            facts |= {"machine": one_line(info.machine), "firmware": one_line(info.firmware)}
            facts |= {
                "version": version,
                "platform": one_line(info.platform),
                "unique_id": one_line(info.unique_id),
            }
    return {
        "status": "ok",
        "protocol_version": "5.4",
        "implementation": "farkernel-board",
        "implementation_version": __version__,
        "language_info": {
            "name": language,
            "version": version,
            "mimetype": "text/x-python",
            "file_extension": ".py",
            "pygments_lexer": "python3",
            "codemirror_mode": {"name": "python", "version": 3},
            "nbconvert_exporter": "python",
        },
        "banner": banner(held),
        "debugger": False,
        "supported_features": [],
        "help_links": [{"text": "MicroPython", "url": "https://docs.micropython.org/"}],
        "farkernel": {"board": facts},
    }


def banner(held: HeldBoard | None) -> str:
    first = f"Farkernel {__version__}: " + (held.describe() if held else "no board is connected")
    return f"{first}\n%lsmagic lists what can be done beside running code; a name and ? explains it."
