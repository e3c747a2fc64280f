"""What a keeper imports before anybody waits for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
from farkernel.launcher.configuration import load
from farkernel.launcher.keeper.readiness import get_ready

asyncio.run(get_ready(lambda: load(*sys.argv[1:])))
print(*(name for name in ("asyncssh", "farkernel.backends.ssh", "farkernel.backends.ssh_program") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("targets", "imported"),
    [
        (["local:", "webrepl://board", "slurm:///gpu"], ""),
        (["local:", "ssh://host"], "asyncssh farkernel.backends.ssh"),
        (["slurm://login/gpu"], "asyncssh farkernel.backends.ssh"),
        (['ssh://host"\nssh = "program'], "farkernel.backends.ssh farkernel.backends.ssh_program"),
        (["nonsense://"], ""),
    ],
)
def test_what_the_configured_targets_will_need(targets: list[str], imported: str, tmp_path: Path) -> None:
    tables = [f'[targets.t{number}]\naddress = "{address}"\n' for number, address in enumerate(targets)]
    (tmp_path / "farkernel").mkdir()
    (tmp_path / "farkernel" / "targets.toml").write_text("\n".join(tables))
    nowhere = str(tmp_path / "nowhere")
    command = [sys.executable, "-c", PROGRAM, nowhere, nowhere, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == imported
    assert done.stderr == ""
