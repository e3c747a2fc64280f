"""`%%local`: Python on this machine, in one child process for a notebook; it starts with the first such cell.

The child (`local_child`) gets a line of JSON for each cell on its stdin, and says what `records` reads on its stdout;
a secret word, which it was given at its start, ends each cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from typing import Any, ClassVar

from ..errors import FarkernelError
from .outputs import Shown
from .running import Asker, OutputReader

_LARGEST_LINE = 64 << 20
_END_PATIENCE = 2.0


class LocalEnded(FarkernelError):
    """The child is gone in the middle of a cell."""

    kind: ClassVar[str] = "local-ended"

    def __init__(self, status: int) -> None:
        super().__init__(
            f"the Python of %%local ended by itself (status {status}); its variables are gone",
            "Run the cell again: a new one is started",
        )


class LocalPython:
    """The child process and what it says."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._word = b""

    async def run(self, code: str, output: Shown, ask: Asker) -> dict[str, Any]:
        """How it ended: ``{}``, or ``ename``, ``evalue`` and ``traceback``.  Raises `LocalEnded`."""
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        write = process.stdin.write
        reader = OutputReader(output, ask, lambda line: write(line + b"\n"))
        write(json.dumps({"code": code}).encode() + b"\n")
        try:
            end = await self._read(process, process.stdout, reader)
        except asyncio.CancelledError:  # somebody interrupted twice: this child does not listen
            await self.close()
            raise
        finally:
            reader.finish()
        return end

    async def _read(
        self, process: asyncio.subprocess.Process, stdout: asyncio.StreamReader, reader: OutputReader
    ) -> dict[str, Any]:
        pending = b""
        while data := await stdout.read(65536):
            pending += data
            text, word, end = pending.partition(self._word)
            if word:
                reader.feed(text)
                while not end.endswith(b"\n"):
                    end += await stdout.readline()
                found: dict[str, Any] = json.loads(end)
                return found
            # The word may have come in part: so much is kept back.
            kept = next(
                (size for size in range(len(self._word) - 1, 0, -1) if pending.endswith(self._word[:size])), 0
            )
            reader.feed(pending[: len(pending) - kept])
            pending = pending[len(pending) - kept :]
        raise LocalEnded(await process.wait())

    async def _start(self) -> asyncio.subprocess.Process:
        self._word = secrets.token_hex(16).encode()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-u", "-m", f"{__package__}.local_child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LARGEST_LINE,
            start_new_session=True,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        assert process.stdin is not None
        process.stdin.write(self._word + b"\n")
        return process

    async def interrupt(self) -> None:
        """Ctrl-C."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    async def close(self) -> None:
        """End the child and all that it started."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_PATIENCE):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
