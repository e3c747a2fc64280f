"""The engine of this machine, for the tests of everything together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.engine import Engine


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
    engine = Engine(home)
    yield engine
    engine.close()
