"""`is_complete`: whether what was typed in a console can run now, and how far the next line is indented."""

from __future__ import annotations

import codeop
import warnings

from . import cells


def judge(code: str) -> tuple[str, str]:
    """("complete" | "incomplete" | "invalid", indentation of the next line)."""
    if code.lstrip().startswith("%%"):
        # The body of a cell magic has no end of its own: an empty line ends it, as in IPython.
        return ("complete", "") if "\n" in code and code.endswith("\n") else ("incomplete", "")
    parts = cells.split(code)
    if not parts or not isinstance(parts[-1], cells.Code):
        return "complete", ""
    source = parts[-1].source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = codeop.compile_command(source, symbol="exec")
    except (SyntaxError, ValueError, OverflowError):
        return "invalid", ""
    lines = source.split("\n")
    indent = _next_indent(lines)
    # A block may go on until an empty line says that it does not.
    if compiled is None or (lines[-1].strip() and lines[-1].startswith((" ", "\t"))):
        return "incomplete", indent
    return "complete", ""


def _next_indent(lines: list[str]) -> str:
    last = next((line for line in reversed(lines) if line.strip()), "")
    own = last[: len(last) - len(last.lstrip())]
    code = last.split("#")[0].rstrip()
    if code.endswith(":"):
        return own + "    "
    if code.split()[:1] and code.split()[0] in ("return", "pass", "break", "continue", "raise"):
        return own[:-4]
    return own
