"""`farkernel scan`: which kernels can be had at a target."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from .. import configuration
from ..text import clean, one_line
from . import table
from .arguments import add_json
from .asking import Asking
from .output import emit, fold, say, terminal_columns

DEADLINE = 90.0
MOST_MODULES = 60

_KERNEL_OF = {"python": "ipykernel", "R": "IRkernel", "julia": "IJulia"}


def configure_scan(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look which kernels and environments there are at a target; nothing is started or changed there."
    )
    parser.add_argument("name", metavar="NAME", help="a target")
    add_json(parser)


def run_scan(arguments: argparse.Namespace) -> int:
    target = configuration.load().target(arguments.name)
    with Asking() as client:
        client.may_be_asked(arguments.name)
        found = client.request("scan", DEADLINE, target=arguments.name)
    kernelspecs = [row for row in found.get("kernelspecs") or [] if isinstance(row, dict)]
    environments = [row for row in found.get("environments") or [] if isinstance(row, dict)]
    modules = [str(name) for name in found.get("modules") or []]
    complete = bool(found.get("complete"))
    if arguments.json:
        emit(
            {
                "target": arguments.name,
                "kernelspecs": kernelspecs,
                "environments": environments,
                "modules": modules,
                "complete": complete,
            }
        )
        return 0
    if kernelspecs:
        table.show(KERNELSPECS, kernelspecs)
    if environments:
        if kernelspecs:
            print()
        table.show(ENVIRONMENTS, [_cells(row) for row in environments])
    if modules:
        print()
        show_modules(modules)
    if kernelspecs or environments:
        print()
    for line in advice(arguments.name, str(target.address), kernelspecs, environments):
        print(clean(line))  # not folded: it is there to be copied
    if not complete:
        say(
            "The search was cut off at its deadline: there may be more (a file system that does not answer?)."
        )
    return 0


def show_modules(names: list[str]) -> None:
    """As many as help a person; a cluster may have thousands, which `--json` tells all."""
    print("MODULES")
    text = ", ".join(one_line(name) for name in names[:MOST_MODULES])
    for line in fold(text, terminal_columns(sys.stdout) or 100):
        print(line)
    if len(names) > MOST_MODULES:
        print(f"and {len(names) - MOST_MODULES} more (--json tells all)")


KERNELSPECS = (
    table.Column("name", "KERNEL", shrinks=True),
    table.Column("display_name", "NAME", shrinks=True),
    table.Column("language", "LANGUAGE"),
    table.Column("path", "PATH", shrinks=True),
)
ENVIRONMENTS = (
    table.Column("name", "ENVIRONMENT", shrinks=True),
    table.Column("kind", "KIND"),
    table.Column("language", "LANGUAGE"),
    table.Column("version", "VERSION"),
    table.Column("has", "KERNEL IN IT"),
    table.Column("path", "PATH", shrinks=True),
)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    package = _KERNEL_OF.get(str(row.get("language")), "")
    return {**row, "has": package if row.get("kernel") else "no"}


def _word(row: dict[str, Any]) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", str(row.get("name") or "env").lower()).strip("-._") or "env"


def advice(
    name: str, address: str, kernelspecs: list[dict[str, Any]], environments: list[dict[str, Any]]
) -> list[str]:
    """How one of them gets into the menu."""
    lines = []
    if kernelspecs:
        lines.append(f"Into the menu:   farkernel install {name} --kernel {kernelspecs[0].get('name')}")
    ready = [row for row in environments if row.get("kernel")]
    ready.sort(key=lambda row: row.get("language") == "python")
    if ready:
        path, entry = ready[-1].get("path"), f"{name}-{_word(ready[-1])}"
        lines.append(f"An environment:  farkernel install {name} --kernel {path} --as {entry}")
        if ready[-1].get("language") == "python":
            program = ready[-1].get("program")
            lines.append(f"As a target:     farkernel add NEW-NAME {address} --python {program}")
    if kernelspecs or ready:
        lines.append(f"All of them:     farkernel install {name} --all")
    if not lines:
        lines.append(
            "No kernel is there. With pip in any Python there: python3 -m pip install ipykernel"
            if environments
            else "Nothing was found there, not even a Python that could have a kernel in it."
        )
    return lines
