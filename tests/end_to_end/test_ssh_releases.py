"""A kernel on other releases of Debian, with what they have: OpenSSH 8.4 and Python 3.9, OpenSSH 10 and Python 3.13."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..sites.engine import Engine
from ..sites.far import Notebook
from ..sites.releases import PYTHONS, RELEASES, ReleaseSshd

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.mark.parametrize("release", RELEASES)
def test_a_kernel_of_that_release(engine: Engine, home: Path, release: str) -> None:
    with ReleaseSshd(home.parent / "sshd", release) as host:
        config = str(host.write_client_config())
        engine.target("far", address=host.address, python="/usr/bin/python3", ssh_config=config)
        with Notebook(engine) as notebook:
            notebook.client.execute("import sys; print('Python', sys.version)")
            message, _ = notebook.shown(f"Python {PYTHONS[release]}", 120)
            assert message["header"]["msg_type"] == "stream"
        engine.close()
