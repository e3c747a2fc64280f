"""A place in a board's flash."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 4096  # what flash chips erase at once, and the block of every file system here


@dataclass(frozen=True)
class Region:
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def blocks(self) -> int:
        return self.size // BLOCK
