"""A board in this process: runs code with this Python, and answers as MicroPython does."""

from __future__ import annotations

import ast
import asyncio
import builtins
import ctypes
import queue
import sys
import threading
import types
from typing import Any

from farkernel.launcher.board.contract import BoardInfo, BoardState, OnOutput, OnState
from farkernel.launcher.board.errors import BoardException, BoardGone, BoardLost
from farkernel.launcher.board.session import Board

INFO = BoardInfo(
    "fake board", "MicroPython v1.25.0 on 2025-04-15; fake board", (1, 25, 0), "micropython", "fake"
)


class FakeTransport:
    """Only its name is asked for."""

    windowed = False
    pause = 0.0
    buffered = 0

    def describe(self) -> str:
        return "/dev/fake"


class FakeBoard(Board):
    """`plugged` says whether it is there; `pull` and `plug` change it while somebody holds it."""

    def __init__(self, on_state: OnState, free: int = 100_000) -> None:
        self.transport = FakeTransport()  # type: ignore[assignment]
        self.on_state = on_state
        self.state = BoardState.CLOSED
        self.info = None
        self.plugged = True
        self.deaf = False
        self.connect_error: Exception | None = None
        self.free = free
        self.resets = 0
        self.ran: list[str] = []
        self._typed: queue.Queue[bytes] = queue.Queue()
        self._lock = asyncio.Lock()
        self._thread: threading.Thread | None = None
        self._lost = asyncio.Event()
        self._on_output: OnOutput = lambda data: None
        self._fresh()

    def _fresh(self) -> None:
        self.modules: dict[str, Any] = {
            "sys": types.SimpleNamespace(modules={}, implementation=sys.implementation)
        }
        self.modules["gc"] = types.SimpleNamespace(mem_free=lambda: self.free, collect=lambda: None)
        board_builtins = types.ModuleType("builtins")
        board_builtins.__dict__.update(vars(builtins))
        board_builtins.__dict__.update(
            print=self._print, input=self._input, __import__=self._import, help=self._help
        )
        self.modules["builtins"] = board_builtins
        self.globals: dict[str, Any] = {"__builtins__": board_builtins, "__name__": "__main__"}

    def _move(self, state: BoardState, said: str = "") -> None:
        self.state = state
        self.on_state(state, said)

    # -- what the program on it uses

    def _import(self, name: str, *arguments: Any) -> Any:
        if name == "farkernel":
            if name not in self.modules["sys"].modules:
                raise ImportError("no module named 'farkernel'")
            return self.modules["sys"].modules[name]
        return self.modules.get(name) or builtins.__import__(name, *arguments)

    def _print(self, *values: object, sep: str = " ", end: str = "\n") -> None:
        self._emit((sep.join(map(str, values)) + end).replace("\n", "\r\n").encode("utf-8", "surrogatepass"))

    def _emit(self, data: bytes) -> None:
        self.loop.call_soon_threadsafe(self._on_output, data)

    def _help(self, what: str) -> None:
        self._print(
            "__main__          gc                machine           time\nPlus any modules on the filesystem"
        )

    def _input(self, prompt: str = "") -> str:
        self._print(prompt, end="")
        line = b""
        while not line.endswith(b"\r"):
            while True:
                try:
                    line += self._typed.get(timeout=0.05)
                    break
                except queue.Empty:
                    continue
        self._emit(line[:-1] + b"\r\n")
        return line[:-1].decode()

    # -- the contract

    async def connect(self) -> BoardInfo:
        self.loop = asyncio.get_running_loop()
        if self.connect_error is not None:
            raise self.connect_error
        if not self.plugged:
            raise BoardGone("/dev/fake", "no such device")
        self._move(BoardState.OPENING)
        self.info = INFO
        self._move(BoardState.READY, "fake board")
        return INFO

    async def execute(self, code: str | bytes, on_output: OnOutput) -> bytes:
        if self.state is BoardState.LOST:
            raise BoardGone("/dev/fake", "unplugged")
        async with self._lock:
            self._move(BoardState.RUNNING)
            self._lost.clear()
            done = self.loop.create_future()
            self._on_output = on_output
            text = code.decode() if isinstance(code, bytes) else code
            self.ran.append(text)
            self._thread = threading.Thread(target=self._run_program, args=(text, done), daemon=True)
            self._thread.start()
            lost = asyncio.ensure_future(self._lost.wait())
            try:
                await asyncio.wait({done, lost}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self._raise_in_thread()
                await done
                raise
            finally:
                lost.cancel()
                if self.state is BoardState.RUNNING:
                    self._move(BoardState.READY)
            if not done.done():
                self._raise_in_thread()
                raise BoardLost("/dev/fake", "was unplugged")
            return bytes(done.result())

    def _run_program(self, code: str, done: asyncio.Future[bytes]) -> None:
        said = b""
        try:
            exec(compile(code, "<stdin>", "exec"), self.globals)  # noqa: S102
        except BaseException as error:  # noqa: BLE001 - it is the program's
            said = _as_micropython(error)
        self.loop.call_soon_threadsafe(_settle, done, said)

    def _raise_in_thread(self) -> None:
        assert self._thread is not None
        assert self._thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt)
        )

    def send_input(self, data: bytes) -> None:
        self._typed.put(data)

    async def interrupt(self) -> None:
        if self.state is BoardState.RUNNING and not self.deaf:
            self._raise_in_thread()

    async def soft_reset(self, on_output: OnOutput) -> None:
        self.resets += 1
        self._fresh()

    async def hard_reset(self) -> BoardInfo:
        self._fresh()
        return INFO

    async def evaluate(self, expression: str) -> Any:
        said: list[bytes] = []
        failed = await self.execute(f"print(repr({expression}))", said.append)
        if failed:
            raise BoardException(failed)
        return ast.literal_eval(b"".join(said).decode().strip())

    async def close(self) -> None:
        self._move(BoardState.CLOSED)

    # -- the cable

    def pull(self) -> None:
        self.plugged = False
        self._lost.set()
        self._move(BoardState.LOST, "/dev/fake was unplugged")

    def plug(self) -> None:
        self.plugged = True
        self._fresh()
        self._move(BoardState.READY, "fake board is back")


def _settle(done: asyncio.Future[bytes], said: bytes) -> None:
    if not done.done():
        done.set_result(said)


def _as_micropython(error: BaseException) -> bytes:
    lines = ["Traceback (most recent call last):"]
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        if code.co_filename != __file__:
            lines.append(f'  File "{code.co_filename}", line {place.tb_lineno}, in {code.co_name}')
        place = place.tb_next
    lines.append(f"{type(error).__name__}: {error}")
    return "".join(line + "\r\n" for line in lines).encode()
