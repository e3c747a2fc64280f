"""Letters for logos, five dots wide and seven high; a row is a number whose highest of five bits is at the left."""

from __future__ import annotations

HEIGHT, WIDTH = 7, 5

_ROWS = """
A 0E 11 11 1F 11 11 11   B 1E 11 11 1E 11 11 1E   C 0E 11 10 10 10 11 0E   D 1C 12 11 11 11 12 1C
E 1F 10 10 1E 10 10 1F   F 1F 10 10 1E 10 10 10   G 0E 11 10 17 11 11 0E   H 11 11 11 1F 11 11 11
I 0E 04 04 04 04 04 0E   J 07 02 02 02 02 12 0C   K 11 12 14 18 14 12 11   L 10 10 10 10 10 10 1F
M 11 1B 15 15 11 11 11   N 11 19 15 15 13 11 11   O 0E 11 11 11 11 11 0E   P 1E 11 11 1E 10 10 10
Q 0E 11 11 11 15 12 0D   R 1E 11 11 1E 14 12 11   S 0F 10 10 0E 01 01 1E   T 1F 04 04 04 04 04 04
U 11 11 11 11 11 11 0E   V 11 11 11 11 11 0A 04   W 11 11 11 15 15 1B 11   X 11 11 0A 04 0A 11 11
Y 11 11 0A 04 04 04 04   Z 1F 01 02 04 08 10 1F   $ 04 0F 14 0E 05 1E 04   + 00 04 04 1F 04 04 00
# 0A 0A 1F 0A 1F 0A 0A   _ 00 00 00 00 00 00 1F   ? 0E 11 01 06 04 00 04
"""


def _read() -> dict[str, tuple[int, ...]]:
    words = _ROWS.split()
    step = HEIGHT + 1
    return {
        words[start]: tuple(int(word, 16) for word in words[start + 1 : start + step])
        for start in range(0, len(words), step)
    }


LETTERS = _read()


def dots(text: str) -> list[tuple[int, int]]:
    """(column, row) of each dot; one column is left free between letters, and what is not known is a question mark."""
    return [
        (number * (WIDTH + 1) + column, row)
        for number, letter in enumerate(text.upper())
        for row, bits in enumerate(LETTERS.get(letter, LETTERS["?"]))
        for column in range(WIDTH)
        if bits >> (WIDTH - 1 - column) & 1
    ]
