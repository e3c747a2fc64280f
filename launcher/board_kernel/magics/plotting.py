"""Live plots of the numbers that a program prints."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from .. import chart, numbers
from ..context import Context
from ..errors import MagicUsage
from ..outputs import Shown
from ..usage import Arguments

# A picture is drawn again this often at most: more is not seen, and costs the network.
_INTERVAL = 0.2


class Plot:
    """A filter that takes lines of numbers out of the text and draws them."""

    def __init__(self, output: Shown, table: numbers.Table, style: dict[str, Any], shows_text: bool) -> None:
        self._output = output
        self._table = table
        self._style = style
        self._shows_text = shows_text
        self._id = "plot-" + secrets.token_hex(6)
        self._line = ""
        self._drawn = False
        self._drawn_lines = 0
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, text: str) -> str:
        *lines, self._line = (self._line + text).split("\n")
        shown = "".join(f"{line}\n" for line in lines if not self._take(line) or self._shows_text)
        if self._table.lines > self._drawn_lines and self._timer is None:
            if self._drawn:
                self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._draw)
            else:
                self._draw()
        return shown

    def _take(self, line: str) -> bool:
        values = numbers.read(line)
        if values is not None:
            self._table.add(values)
        return values is not None

    def finish(self) -> str:
        rest, self._line = self._line, ""
        shown = rest if rest and (not self._take(rest) or self._shows_text) else ""
        if self._timer is not None:
            self._timer.cancel()
        if self._table.lines > self._drawn_lines:
            self._draw()
        return shown

    def _draw(self) -> None:
        self._timer = None
        self._drawn_lines = self._table.lines
        series = list(self._table.series.values())
        plain = "\n".join(f"{one.name}: {chart.spark(one)} {one.last:g}" for one in series)
        data = {"image/svg+xml": chart.draw(series, **self._style), "text/plain": plain}
        self._output.show(data, self._id, update=self._drawn)
        self._drawn = True


async def plot(context: Context, arguments: Arguments) -> None:
    names = [name.strip() for name in arguments.option("--names").split(",") if name.strip()]
    style = {
        "title": arguments.option("--title"),
        "x_name": arguments.option("--x"),
        "low": _number(arguments, "--low"),
        "high": _number(arguments, "--high"),
    }
    window = _number(arguments, "--last")
    table = numbers.Table(names, int(window or 0), arguments.option("--x"))
    code = arguments.body if arguments.body is not None else " ".join(arguments.many("STATEMENT"))
    if not code.strip():
        raise MagicUsage("there is nothing to run", "plot", "STATEMENT…, or %%plot above a cell")
    picture = Plot(context.output, table, style, arguments.flag("--text"))
    with context.filtered(picture) as own:
        await own.run(code, arguments.line)
    if not table.lines:
        context.notice(
            "No line of numbers was printed: print for example 3 4.5, (3, 4.5) or light: 3, sound: 4.5"
        )


def _number(arguments: Arguments, name: str) -> float | None:
    text = arguments.option(name)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise MagicUsage(f"{name} needs a number, not {text!r}", "plot", "") from None
