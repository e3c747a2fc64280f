"""`serial://` and `webrepl://` targets: boards.  The kernel is ours and runs beside the keeper (DESIGN §2)."""

from __future__ import annotations

import sys

from ..launcher.configuration import Target
from .local import LocalBackend


class SerialBackend(LocalBackend):
    """The allocation is this machine's, with the same agent and link as `local:`; who holds the board is known by
    its port."""

    def kernel_argv(self, target: Target) -> list[str]:
        return [
            # -P: the kernel starts in the notebook's directory, where a json.py must not stand in for Python's own.
            *(sys.executable, "-P", "-m", "farkernel.launcher.board_kernel"),
            *("-f", "{connection_file}", "--device", str(target.address), "--name", target.name),
            *target.options,
        ]


BACKEND = SerialBackend()
