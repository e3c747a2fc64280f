"""The engine of this machine, for the tests of everything together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.batch_notebook import Notebook
from ..sites.engine import Engine
from ..sites.slurm import SlurmSite
from ..sites.ssh import Sshd


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
    engine = Engine(home)
    yield engine
    engine.close()


@pytest.fixture
def notebooks() -> Iterator[list[Notebook]]:
    """Closed at the end: those that a test puts into it."""
    opened: list[Notebook] = []
    yield opened
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def slurm_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmSite]:
    site = SlurmSite(tmp_path_factory.mktemp("slurm"))
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def slurm_here(slurm_site: SlurmSite, monkeypatch: pytest.MonkeyPatch) -> SlurmSite:
    """Its commands work on this machine."""
    for name, value in slurm_site.environment.items():
        monkeypatch.setenv(name, value)
    return slurm_site


@pytest.fixture
def slurm_login(slurm_site: SlurmSite, home: Path) -> Iterator[Sshd]:
    """A host that is reached by SSH, where its commands work."""
    with Sshd(home.parent / "sshd") as host:
        host.environment.update(slurm_site.environment)
        host.write_client_config()
        host.restart()
        yield host
