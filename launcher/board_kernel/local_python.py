"""`%%local`: Python on this machine, in one child process for a notebook; it starts with the first such cell.

The child (`local_child`) gets a line of JSON for each cell on its stdin, and says what `records` reads on its stdout;
a secret word, which it was given at its start, ends each cell there and on its stderr.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
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
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        reader = OutputReader(output, ask, lambda line: stdin.write(line + b"\n"))
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        stdin.write(json.dumps({"code": code}).encode() + b"\n")
        try:
            errors = self._read(stderr, lambda data: output.write(decode(data), "stderr"))
            end, _ = await asyncio.gather(self._read(stdout, reader.feed), errors)
        except asyncio.CancelledError:  # somebody interrupted twice: this child does not listen
            await self.close()
            raise
        finally:
            reader.finish()
        if end is None:
            raise LocalEnded(await process.wait())
        return json.loads(end) if end.strip() else {}

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> bytes | None:
        """Give what comes until the word; what follows it on its line.  None: the child has ended."""
        pending = b""
        while data := await stream.read(65536):
            pending += data
            text, word, end = pending.partition(self._word)
            if word:
                take(text)
                return end if end.endswith(b"\n") else end + await stream.readline()
            # The word may have come in part: so much is kept back.
            sizes = range(len(self._word) - 1, 0, -1)
            kept = next((size for size in sizes if pending.endswith(self._word[:size])), 0)
            take(pending[: len(pending) - kept])
            pending = pending[len(pending) - kept :]
        take(pending)
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        self._word = secrets.token_hex(16).encode()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-u", "-m", f"{__package__}.local_child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
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
