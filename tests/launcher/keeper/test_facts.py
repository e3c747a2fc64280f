"""A kernel's end in words: the keeper's own, and those of an agent that may say anything."""

from __future__ import annotations

import pytest

from farkernel.launcher.keeper.facts import KernelGone, reason_from_agent


def test_a_kernel_that_is_gone_is_said_with_what_is_lost_and_what_to_do() -> None:
    assert str(KernelGone("node7")) == (
        "the kernel is gone: node7 knows nothing of it any more, as when that machine was restarted while it could not "
        "be reached. What the kernel had in memory is lost. Restart the kernel for a fresh one"
    )


def test_an_honest_reason_stays_as_it_is() -> None:
    reason = {"kind": "exit", "text": "It exited.", "tail": "one\n\ttwo", "status": 3, "signum": None}
    assert reason_from_agent(reason) == reason


@pytest.mark.parametrize("said", [None, [], "ended", 7])
def test_what_is_no_reason_becomes_one(said: object) -> None:
    assert reason_from_agent(said)["text"] == "the kernel has ended"


def test_a_hostile_reason_keeps_its_words_and_loses_the_rest() -> None:
    said = {
        "kind": ["x"],
        "text": "\x1b[31mred",
        "tail": "\x1b]0;owned\x07end\x9b5n",
        "status": "9",
        "signum": {},
    }
    told = {"kind": "['x']", "text": "red", "tail": "end", "status": None, "signum": None}
    assert reason_from_agent(said) == told
