"""Parsing arguments so that errors are one sentence and what to do."""

from __future__ import annotations

import argparse
import shutil
from typing import NoReturn

from .output import complain, fold


class Parser(argparse.ArgumentParser):
    """The parser of one command."""

    def __init__(self, command: str, description: str, examples: str = "") -> None:
        super().__init__(
            prog=f"farkernel {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if examples:
            self.epilog = "Examples:\n" + "\n".join(f"  {line}" for line in examples.split("\n"))

    def format_help(self) -> str:
        if self.description and "\n" not in self.description:
            # The formatter leaves examples as they are, and with them everything else.
            self.description = "\n".join(
                fold(self.description, min(shutil.get_terminal_size().columns - 2, 80))
            )
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        complain(f"{message}. See `{self.prog} --help`.")
        raise SystemExit(2)


class ActionParser(Parser):
    """The parser of what a command can do: `parser.add_subparsers(parser_class=ActionParser)`."""

    def __init__(self, *, prog: str, description: str = "", examples: str = "") -> None:
        super().__init__(prog.removeprefix("farkernel "), description, examples)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write JSON, for programs")
