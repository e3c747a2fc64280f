"""What a notebook says about the directory in which its kernel works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import Target
from farkernel.launcher.keeper.working_directory import note, notebook_directory


def target(**more: Any) -> Target:
    return Target("gpu", parse_address("local:"), **more)


@pytest.mark.parametrize(
    ("answer", "more", "text"),
    [
        ({"cwd": "/data", "shared": True, "why": ""}, {}, ""),
        ({"cwd": "/data"}, {}, ""),  # an agent of another version
        (
            {"cwd": "/home/me", "shared": False, "why": "missing"},
            {},
            "[farkernel] this kernel works in /home/me on node7 (the notebook's directory, /data, is not there; `cwd` "
            "chooses another, `farkernel sync gpu PATH` copies files)\n",
        ),
        (
            {"cwd": "/home/me", "shared": False, "why": "other"},
            {},
            "[farkernel] this kernel works in /home/me on node7 (/data there is not the notebook's directory; `cwd` "
            "chooses another, `farkernel sync gpu PATH` copies files)\n",
        ),
        (
            {"cwd": "/scratch", "shared": False, "why": "configured"},
            {"cwd": "/scratch"},
            "[farkernel] this kernel works in /scratch on node7 (the target's `cwd`; the notebook is in /data)\n",
        ),
        (
            {"cwd": "/home/me", "shared": False, "why": "configured-missing"},
            {"cwd": "/scratch"},
            "[farkernel] this kernel works in /home/me on node7 (the target's `cwd`, /scratch, is not there)\n",
        ),
    ],
)
def test_the_note(answer: dict[str, Any], more: dict[str, Any], text: str) -> None:
    assert note(answer, target(**more), "/data", "node7") == text
    assert note(answer, target(**more), "", "node7") == ""


def test_a_lying_far_end_paints_nothing() -> None:
    text = note({"cwd": "/\x1b[31mred\n", "shared": False, "why": "\x07"}, target(), "/data", "\x1b]0;x\x07h")
    assert "\x1b" not in text
    assert text.count("\n") == 1


async def looked(path: str) -> Any:
    return await notebook_directory(path)


def test_a_directory_that_is_gone_is_named_all_the_same(tmp_path: Path) -> None:
    import asyncio

    assert asyncio.run(looked("")) is None
    assert asyncio.run(looked(str(tmp_path / "gone"))) == {"path": str(tmp_path / "gone")}
    assert asyncio.run(looked(str(tmp_path)))["inode"] == tmp_path.stat().st_ino
