"""Help, and what is on the board."""

from __future__ import annotations

from collections.abc import Mapping

from ...text import clean
from ..context import Context
from ..magic import Magic
from ..usage import Arguments


def overview(table: Mapping[str, Magic]) -> str:
    """All of them, one line each."""
    rows = [(magic.call, magic.summary.partition(". ")[0].rstrip(".")) for magic in table.values()]
    width = max(len(call) for call, _ in rows)
    lines = [f"{call:{width}}  {summary}" for call, summary in rows]
    return "\n".join([*lines, "", "A magic's name and ? explains it: %ls?"])


async def modules(context: Context, arguments: Arguments) -> None:
    from ..completion import modules as find

    held = await context.ready()
    context.say("\n".join(clean(name) for name in sorted(set(await find(held)))))


async def who(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    rows = await held.board.evaluate(
        "[(_n,str(type(_v)),repr(_v)[:60]) for _n,_v in globals().items() if _n[:1]!='_']"
    )
    for name, kind, value in sorted(rows):
        kind = str(kind).removeprefix("<class '").removesuffix("'>")
        if kind not in ("module",) and name != "input":
            context.say(f"{clean(name):16}{clean(kind):12}{clean(value)}")


async def mem(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    context.say(f"{await held.free_memory():,} bytes are free")


async def history(context: Context, arguments: Arguments) -> None:
    for _, number, code in context.history.answer({"hist_access_type": "tail", "n": 0}):
        context.say(f"{number:4}: " + str(code).replace("\n", "\n      "))
