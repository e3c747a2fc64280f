"""`serial://` and `webrepl://` targets: boards.  The kernel is ours and runs beside the keeper (DESIGN §2)."""

from __future__ import annotations

import json
import sys

from ..launcher.configuration import Target
from .local import LocalBackend


class SerialBackend(LocalBackend):
    """The allocation is this machine's, with the same agent and link as `local:`; who holds the board is known by
    its port."""

    def kernel_argv(self, target: Target) -> list[str]:
        command = [
            # -P: the kernel starts in the notebook's directory, where a json.py must not stand in for Python's own.
            *(sys.executable, "-P", "-m", "farkernel.launcher.board_kernel"),
            *("-f", "{connection_file}", "--device", str(target.address), "--name", target.name),
            f"--baud={target.baud}",
        ]
        for name, state in (("dtr", target.dtr), ("rts", target.rts)):
            if state is not None:
                command.append(f"--{name}={'on' if state else 'off'}")
        if target.password_command:
            command.append(f"--password-command={json.dumps(target.password_command)}")
        return command + list(target.options)


BACKEND = SerialBackend()
