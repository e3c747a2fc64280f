"""One magic: its name, its usage, what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from .context import Context
from .usage import Arguments, Usage

Run = Callable[[Context, Arguments], Awaitable[None]]


class Form(Enum):
    LINE = "%"
    CELL = "%%"
    BOTH = "% and %%"


@dataclass(frozen=True)
class Magic:
    """A row of the table.  ``aliases``: names by which people of mpremote and of older kernels know it."""

    name: str
    usage: str
    summary: str
    run: Run
    form: Form = Form.LINE
    aliases: tuple[str, ...] = ()
    more: str = ""

    @cached_property
    def parsed(self) -> Usage:
        return Usage.of(self.usage)

    @property
    def call(self) -> str:
        """As it is written, without arguments."""
        return ("%%" if self.form is Form.CELL else "%") + self.name

    def page(self) -> str:
        """Its help."""
        lines = [f"{self.call} {self.usage}".rstrip(), "", self.summary]
        if self.form is Form.BOTH:
            lines[0] += f"\n%%{self.name} {self.usage}".rstrip()
        if self.more:
            lines += ["", self.more]
        if self.aliases:
            lines += ["", "Also known as " + ", ".join("%" + alias for alias in self.aliases)]
        return "\n".join(lines)
