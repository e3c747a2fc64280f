"""`farkernel resources --html`: one file that needs nothing from elsewhere, light or dark as the reader has it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ..text import one_line
from .machine_lines import Line

_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #667085;
  --rim: #dfe3ea; --track: #e9edf2; --calm: #2f9e6e; --high: #d99a1c; --full: #d1453b; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1d2229; --ink: #e6e9ee; --soft: #98a2b3;
  --rim: #2d343e; --track: #2a313a; --calm: #3fb883; --high: #e0ad45; --full: #e5655c; } }
* { box-sizing: border-box }
body { margin: 0; padding: 1.5rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { font-size: 1.3rem; margin: 0 0 .2rem }
p.when { color: var(--soft); margin: 0 0 1.2rem }
main { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)) }
section { background: var(--card); border: 1px solid var(--rim); border-radius: .6rem; padding: .9rem 1.1rem }
h2 { font-size: 1.05rem; margin: 0 }
h2 small { font-weight: normal; color: var(--soft); margin-left: .5rem }
p.about { color: var(--soft); margin: .1rem 0 .7rem; font-size: .88rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th { text-align: left; font-weight: 600; white-space: nowrap; padding: .18rem .7rem .18rem 0; vertical-align: top }
td { padding: .18rem 0; vertical-align: top; overflow-wrap: anywhere }
td.bar { width: 7.5rem; padding-right: .7rem; padding-top: .45rem }
td.amount { white-space: nowrap; text-align: right; padding-right: .8rem; font-variant-numeric: tabular-nums }
.track { height: .6rem; border-radius: .3rem; background: var(--track); overflow: hidden }
.track i { display: block; height: 100%; background: var(--calm) }
.high .track i { background: var(--high) } .full .track i { background: var(--full) }
.bad td, .bad th, p.failed { color: var(--full) } .dim td { color: var(--soft) }
p.failed { margin: .4rem 0 0 } summary { color: var(--soft); margin: .6rem 0 .2rem; cursor: pointer }
"""


class Block(NamedTuple):
    """One machine or cluster, with the targets that lead there; or, without lines, why it ``failed``."""

    names: str
    addresses: str
    about: str = ""
    lines: Sequence[Line] = ()
    more: Sequence[Line] = ()  # shown when somebody opens it
    failed: str = ""


def page(blocks: Sequence[Block], targets: str, now: float, again: float | None = None) -> str:
    """``again``: seconds after which the page loads itself anew."""
    refresh = "" if again is None else f'<meta http-equiv="refresh" content="{max(round(again), 1)}">\n'
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{refresh}<title>Farkernel: resources</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>What is there, and what is free</h1>\n<p class="when">{when} · {_text(targets)}</p>\n'
        f"<main>\n{''.join(map(_section, blocks))}</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """From far ends: without control characters, and never markup."""
    return escape(one_line(value))


def _section(block: Block) -> str:
    head = f"<section>\n<h2>{_text(block.names)}<small>{_text(block.addresses)}</small></h2>\n"
    if block.failed:
        return f'{head}<p class="failed">{_text(block.failed)}</p>\n</section>\n'
    more = ""
    if block.more:
        rows = "".join(map(_row, block.more))
        more = f"<details><summary>{len(block.more)} nodes</summary>\n<table>\n{rows}</table>\n</details>\n"
    rows = "".join(map(_row, block.lines))
    return f'{head}<p class="about">{_text(block.about)}</p>\n<table>\n{rows}</table>\n{more}</section>\n'


def _row(line: Line) -> str:
    kind = f' class="{line.level}"' if line.level else ""
    head = f"<tr{kind}><th>{_text(line.label)}</th>"
    if line.part is None and not line.amount:
        return f'{head}<td colspan="3">{_text(line.text)}</td></tr>\n'
    bar = ""
    if line.part is not None:
        bar = f'<div class="track"><i style="width:{min(max(line.part, 0.0), 1.0) * 100:.1f}%"></i></div>'
    return (
        f'{head}<td class="bar">{bar}</td><td class="amount">{_text(line.amount)}</td>'
        f"<td>{_text(line.text)}</td></tr>\n"
    )
