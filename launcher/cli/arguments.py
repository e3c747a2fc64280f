"""Parsing arguments so that errors are one sentence and what to do."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .output import complain


class Parser(argparse.ArgumentParser):
    """The parser of one command."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"farkernel {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        complain(f"{message}. See `{self.prog} --help`.")
        raise SystemExit(2)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write JSON, for programs")
