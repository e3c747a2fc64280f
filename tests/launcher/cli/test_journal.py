"""Moments as people write them, and what `output` makes of the keeper's answer."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from farkernel.launcher.cli import main
from farkernel.launcher.cli.journal import BadMoment, moment
from farkernel.launcher.client import keeper_directory
from tests.launcher.fake_keeper import FakeKeeper

NOW = datetime(2026, 3, 1, 12, 0, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", datetime(2026, 3, 1, 11, 50)),
        ("1h30m", datetime(2026, 3, 1, 10, 30)),
        ("11:15", datetime(2026, 3, 1, 11, 15)),
        ("11:15:20", datetime(2026, 3, 1, 11, 15, 20)),
        ("13:00", datetime(2026, 2, 28, 13, 0)),  # it is not yet one o'clock: yesterday's
        ("2026-02-01", datetime(2026, 2, 1)),
        ("2026-02-01T08:00", datetime(2026, 2, 1, 8, 0)),
        ("2026-02-01 08:00:01", datetime(2026, 2, 1, 8, 0, 1)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected.timestamp()


@pytest.mark.parametrize("text", ["", "soon", "25:00", "11:60", "10 parsecs", "2026-13-01", "\x1b[2J"])
def test_no_moments(text: str) -> None:
    with pytest.raises(BadMoment, match="is no moment"):
        moment(text, NOW)


@pytest.mark.parametrize("text", ["soon", "25:00"])
def test_a_bad_moment_is_said_before_anything_is_asked(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["output", "x", "--since", text]) == 1
    assert "is no moment" in capsys.readouterr().err


def test_text_is_made_harmless_and_the_file_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "journal"
    lines = [
        {"cell": {"msg_id": "m", "cell": "a", "time": time.time(), "line": "evil\x1b[2J"}},
        {
            "number": 1,
            "time": 2.0,
            "msg_type": "stream",
            "parent": "m",
            "content": {"name": "stdout", "text": "a\x1b]0;title\x07b\n\tc"},
            "buffers": 0,
        },
        {"end": True},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with FakeKeeper(Path(keeper_directory())) as keeper:
        keeper.handlers["list"] = lambda _: {"kernels": [{"kernel": "abc", "state": "live"}]}
        keeper.handlers["output"] = lambda _: {"path": str(path), "oldest": 1001, "bound": 1 << 20}
        assert main(["output", "a"]) == 0
        assert keeper.wait_for("output")["since"] is None
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert out.endswith("evil\nab\n\tc\n")
    assert "the 1,000 oldest messages are no longer in the journal, which holds 1.0 MiB" in err
    assert not path.exists()
