"""Where a kernel works: in the notebook's directory if the far end has that very one, else elsewhere, which is said."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..agent import directories
from ..configuration import Target
from ..text import one_line

log = logging.getLogger(__name__)

_PATIENCE = 2.0


async def notebook_directory(path: str) -> dict[str, Any] | None:
    """What the agent needs to know the directory again; None when no notebook's directory is known."""
    if not path:
        return None
    try:
        async with asyncio.timeout(_PATIENCE):
            seen = await asyncio.to_thread(directories.evidence, path)
    except TimeoutError:
        log.warning("%s does not answer: it is not looked for at the far end", path)
        seen = None
    return seen or {"path": path}


def note(answer: dict[str, Any], target: Target, notebook: str, host: str) -> str:
    """What the first cell says; empty when the kernel works where the notebook is, or when no front end said where."""
    if not notebook or answer.get("shared") is not False or not answer.get("cwd"):
        return ""
    where = f"{one_line(answer['cwd'])}{' on ' + one_line(host) if host else ''}"
    near = one_line(notebook)
    why = {
        "configured": f"the target's `cwd`; the notebook is in {near}",
        "configured-missing": f"the target's `cwd`, {one_line(target.cwd or '')}, is not there",
        "missing": f"the notebook's directory, {near}, is not there",
        "other": f"{near} there is not the notebook's directory",
    }.get(str(answer.get("why")), f"not in {near}")
    sync = f"`farkernel sync {one_line(target.name)} PATH` copies files"
    advice = "" if target.cwd else f"; `cwd` chooses another, {sync}"
    return f"[farkernel] this kernel works in {where} ({why}{advice})\n"
