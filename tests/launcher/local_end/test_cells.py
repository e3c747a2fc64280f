"""Which cell asked what, and how much nobody saw, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farkernel.launcher.local_end.cells import CellLog, MissedCount, missed_text, read_cells
from farkernel.launcher.messages import Message, pack


def request(number: int, code: str = "x = 1\ny", silent: bool = False, **metadata: Any) -> Message:
    header = {"msg_id": f"m{number}", "msg_type": "execute_request", "session": "s"}
    content = {"code": code, "silent": silent}
    return Message([], b"", [pack(header), b"{}", pack(metadata), pack(content)])


def test_what_is_remembered(tmp_path: Path) -> None:
    cells = CellLog(tmp_path / "cells")
    assert cells.add(request(1, cellId="a"))
    assert cells.add(request(2, code="\n\n  print(1)\n"))
    assert not cells.add(request(3, silent=True))
    assert not cells.add(Message([], b"", [b"{", b"{}", b"{}", b"{}"]))
    one, two = read_cells(tmp_path / "cells")
    assert (one["msg_id"], one["cell"], one["line"]) == ("m1", "a", "x = 1")
    assert (two["msg_id"], two["cell"], two["line"]) == ("m2", None, "print(1)")
    assert (tmp_path / "cells").stat().st_mode & 0o777 == 0o600


def test_it_stays_bounded_and_outlives_its_keeper(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    cells = CellLog(path, most=10)
    for number in range(50):
        cells.add(request(number))
    cells.close()
    for number in range(50, 100):
        log = CellLog(path, most=10)
        log.add(request(number))
        log.close()
    assert [cell["msg_id"] for cell in read_cells(path, 10)] == [f"m{number}" for number in range(90, 100)]
    assert len(path.read_bytes().splitlines()) <= 21


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    CellLog(path).add(request(1))
    path.write_bytes(path.read_bytes() + b'{"msg_id": "m2"\n[]\n' + b"\xff\n")
    CellLog(path).add(request(3))
    assert [cell["msg_id"] for cell in read_cells(path)] == ["m1", "m3"]


def test_what_a_kill_kept_from_being_written_is_made_up_for(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    CellLog(path).add(request(1))
    again = CellLog(path)
    for number in (1, 2):
        again.add_missing(request(number))
    assert [cell["msg_id"] for cell in read_cells(path)] == ["m1", "m2"]


def test_what_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    cells = CellLog(tmp_path / "none" / "cells")
    assert cells.add(request(1))


def test_the_count_is_said_once(tmp_path: Path) -> None:
    missed = MissedCount(tmp_path / "missed")
    for _ in range(1234):
        missed.add()
    again = MissedCount(tmp_path / "missed")  # after a kill
    assert again.take() == 1234
    assert missed.count == 0
    missed.close()
    again.close()
    assert "made 1,234 outputs: farkernel output 3f2a --into" in missed_text("3f2a", 1234)
    assert "made 1 output: " in missed_text("3f2a", 1)
