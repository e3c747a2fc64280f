"""A list of hosts as spreadsheets write it (CSV): bytes in, rows with their lines out.

Excel's habits are taken as they are: semicolons or tabs between the cells, a first line ``sep=;``, a byte order mark,
UTF-16, CRLF, empty rows and columns at the end.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..configuration import Problem
from ..settings import nearest, shown

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_SEPARATORS = (",", ";", "\t")
_ALIKE = 0.8  # how much a column's name must look like a known one to be taken for a mistake


@dataclass
class Table:
    """What a file says; each row has the line where it begins."""

    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # columns that are not ours
    problems: list[Problem] = field(default_factory=list)


def decode(data: bytes, file: str) -> str | Problem:
    """The text of a file, or what is wrong with it."""
    mark, encoding = next((each for each in _BOMS if data.startswith(each[0])), (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        # Guessing the code page of another country would make other names of the students'.
        return Problem(file, line, "is not UTF-8", "Save it again as UTF-8; in Excel: CSV UTF-8")


def read_table(data: bytes, file: str, columns: Sequence[str], needed: str) -> Table:
    """The rows, by column; ``needed`` is the column that must be there."""
    table = Table()
    text = decode(data, file)
    if isinstance(text, Problem):
        table.problems.append(text)
        return table
    # As open(newline="") gives them: a quoted cell may hold line ends, and form feeds end nothing.
    lines = list(io.StringIO(text, newline=""))
    first = lines[0].strip() if lines else ""
    skipped = int(len(first) == 5 and first.lower().startswith("sep="))
    separator = first[4] if skipped else _separator(lines)
    reader = csv.reader(lines[skipped:], delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + skipped + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            table.problems.append(
                Problem(file, line, f"cannot be read as CSV: {error}", "Mend the quotes in that line")
            )
            break
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells, file, line, columns, needed, table)
            if header is None:
                break
        else:
            table.rows.append((line, _row(header, cells, file, line, table)))
    if header is None and not table.problems:
        table.problems.append(
            Problem(file, None, "is empty", f"Its first line names the columns: {', '.join(columns)}")
        )
    return table


def _separator(lines: Sequence[str]) -> str:
    """The one that the first line has most of."""
    first = next((line for line in lines if line.strip()), "")
    return max(_SEPARATORS, key=first.count)


def _header(
    cells: Sequence[str], file: str, line: int, columns: Sequence[str], needed: str, table: Table
) -> list[str] | None:
    """The columns' names, empty for those that are not ours; None: the table cannot be read."""
    import difflib

    names: list[str] = []
    for cell in cells:
        name = cell.strip().lower()
        if name in columns:
            if name in names:
                table.problems.append(
                    Problem(file, line, f"the column {name!r} is there twice", "Keep one of them")
                )
            names.append(name)
            continue
        names.append("")
        if name and difflib.get_close_matches(name, columns, n=1, cutoff=_ALIKE):
            table.problems.append(
                Problem(file, line, f"unknown column {shown(name)}", nearest(name, tuple(columns)))
            )
        elif name:
            table.unused.append(cell.strip())
    if needed in names:
        return names
    if not table.problems:
        advice = f"The first line names the columns; known are {', '.join(columns)}"
        table.problems.append(Problem(file, line, f"there is no column {needed!r}", advice))
    return None


def _row(header: Sequence[str], cells: Sequence[str], file: str, line: int, table: Table) -> dict[str, str]:
    if any(cell.strip() for cell in cells[len(header) :]):
        what = f"has {len(cells)} cells, and there are {len(header)} columns"
        table.problems.append(
            Problem(file, line, what, "Put quotes around a cell that has the separator in it")
        )
    pairs: Mapping[str, str] = dict(zip(header, (cell.strip() for cell in cells), strict=False))
    return {name: cell for name, cell in pairs.items() if name and cell}
