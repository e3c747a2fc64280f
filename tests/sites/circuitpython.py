"""A stand-in for a CircuitPython board: its serial console, on a pseudo-terminal, as its documentation describes it.

No CircuitPython runs on this machine (its unix port is published nowhere as a program), so this is written from what
docs.circuitpython.org and learn.adafruit.com ("The REPL", "CIRCUITPY drive") say, and proves no more than that:

* code.py runs first, also after a soft reset from the raw REPL; when it has ended any key enters the REPL
* the REPL has its own banner; the raw REPL is MicroPython's; raw-paste is left out here
* entering the REPL from there makes a fresh interpreter
* the file system can only be read by programs while a computer has the drive
* `sys.implementation`, `microcontroller`; no `machine`

Programs run in this process, with a small `os` and file functions over a dictionary.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import io
import os
import pty
import queue
import sys
import threading
import traceback
import tty
import types
from collections.abc import Callable, Iterator
from typing import Any

BANNER = "Adafruit CircuitPython 9.2.1 on 2024-11-20; Raspberry Pi Pico with rp2040"
_WAITING = "\nPress any key to enter the REPL. Use CTRL-D to reload.\n"
_RELOADED = (
    "Auto-reload is on. Simply save files over USB to run them or enter REPL to disable.\ncode.py output:\n"
)


class CircuitPython:
    """``drive_mounted``: a computer has its drive.  ``code``: what code.py does; it may run for ever."""

    def __init__(self, drive_mounted: bool = True, code: str = "print('Hello World!')") -> None:
        self.drive_mounted = drive_mounted
        self.files = {"code.py": code.encode()}
        self.code_runs = 0
        self.device = ""
        self._typed: queue.Queue[bytes] = queue.Queue()
        self._interrupts = False
        self._master = -1
        self._board: threading.Thread | None = None

    def serve(self, master: int) -> None:
        """The board's own life: until the line ends."""
        self._master = master
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        self._board = threading.current_thread()
        try:
            while True:
                self._run_code()
                while not self._repl():
                    pass
        except _Unplugged:
            pass

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 256)
            except OSError:
                data = b""
            if not data:
                self._typed.put(b"")
                return
            for byte in data:
                if byte == 3 and self._interrupts and self._board is not None:
                    self._interrupts = False
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._board.ident or 0), ctypes.py_object(KeyboardInterrupt)
                    )
                else:
                    self._typed.put(bytes([byte]))

    def _key(self) -> bytes:
        key = self._typed.get()
        if not key:
            raise _Unplugged
        return key

    def _say(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        with contextlib.suppress(OSError):
            os.write(self._master, data.replace(b"\n", b"\r\n"))

    # -- what runs ----------------------------------------------------------------------------------------------

    def _run_code(self) -> None:
        self.code_runs += 1
        self._fresh()
        self._say(_RELOADED)
        self._say(self._execute(self.files["code.py"].decode()))
        self._say("\nCode done running.\n")

    def _execute(self, code: str) -> str:
        """The traceback."""
        try:
            program = compile(code, "<stdin>", "exec")
            self._interrupts = True
            exec(program, self._globals)  # noqa: S102
        except BaseException as error:  # it is the program's
            self._interrupts = False
            if isinstance(error, _Unplugged):
                raise
            return self._shown(error)
        finally:
            self._interrupts = False
        return ""

    def _shown(self, error: BaseException) -> str:
        lines = ["Traceback (most recent call last):"]
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == "<stdin>":
                lines.append(f'  File "<stdin>", line {frame.lineno}, in {frame.name}')
        return "\n".join([*lines, f"{type(error).__name__}: {error}", ""])

    # -- the console --------------------------------------------------------------------------------------------

    def _repl(self) -> bool:
        """From the end of code.py; True: a reload was wanted."""
        self._say(_WAITING)
        if self._key() == b"\x04":
            self._say("soft reboot\n\n")
            return True
        self._fresh()
        self._say(f"\n{BANNER}\n>>> ")
        while True:
            key = self._key()
            if key == b"\x01":
                self._say("raw REPL; CTRL-B to exit\n>")
                if self._raw():
                    return True
                self._say(f"\n{BANNER}\n>>> ")
            elif key == b"\x03":
                self._say("\n>>> ")
            elif key == b"\x04":
                self._say("\nsoft reboot\n\n")
                return True

    def _raw(self) -> bool:
        """True: a reload was wanted."""
        line = b""
        while True:
            key = self._key()
            if key == b"\x01":
                self._say("raw REPL; CTRL-B to exit\n>")
                line = b""
            elif key == b"\x02":
                return False
            elif key == b"\x03":
                line = b""
            elif key == b"\x04" and not line:
                self._say("OK\nsoft reboot\n\n")
                return True
            elif key == b"\x04":
                self._say("OK")
                failed = self._execute(line.decode())
                self._say("\x04" + failed + "\x04>")
                line = b""
            elif key == b"\x05":
                if self._key() + self._key() == b"A\x01":  # raw-paste is asked for: this one has it not
                    self._say("raw REPL; CTRL-B to exit\n>")
            else:
                line += key

    # -- its modules --------------------------------------------------------------------------------------------

    def _fresh(self) -> None:
        implementation = _Named(("circuitpython", (9, 2, 1), BANNER.partition("; ")[2], 262))
        modules: dict[str, Any] = {
            "sys": types.SimpleNamespace(
                implementation=implementation,
                platform="RP2040",
                version="3.4.0; " + BANNER.partition(";")[0],
                modules={},
            ),
            "os": types.SimpleNamespace(
                listdir=lambda path="/": sorted(self.files),
                getcwd=lambda: "/",
                stat=self._stat,
                rename=self._rename,
                remove=self._remove,
            ),
            "gc": types.SimpleNamespace(mem_free=lambda: 150_000, collect=lambda: None),
            "microcontroller": types.SimpleNamespace(cpu=types.SimpleNamespace(uid=b"\xde\xad\xbe\xef")),
            "time": __import__("time"),
            "binascii": __import__("binascii"),
            "hashlib": __import__("hashlib"),
        }

        def find(name: str, *arguments: Any) -> Any:
            if name not in modules:
                raise ImportError(f"no module named '{name}'")
            return modules[name]

        def say(*values: object, sep: str = " ", end: str = "\n") -> None:
            self._say(sep.join(map(str, values)) + end)

        own = {**vars(builtins), "print": say, "__import__": find, "open": self._open}
        modules["builtins"] = types.SimpleNamespace(input=lambda prompt="": "")
        self._globals: dict[str, Any] = {"__builtins__": own, "__name__": "__main__"}

    def _must_be_writable(self) -> None:
        if self.drive_mounted:
            raise OSError(30, "Read-only filesystem")

    def _stat(self, path: str) -> tuple[int, ...]:
        name = path.strip("/")
        if not name:
            return (0x4000, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        if name not in self.files:
            raise OSError(2, "No such file/directory")
        return (0x8000, 0, 0, 0, 0, 0, len(self.files[name]), 0, 0, 0)

    def _remove(self, path: str) -> None:
        self._must_be_writable()
        del self.files[path]

    def _rename(self, old: str, new: str) -> None:
        self._must_be_writable()
        if new in self.files:
            raise OSError(17, "File exists")
        self.files[new] = self.files.pop(old)

    def _open(self, path: str, mode: str = "r") -> io.BytesIO:
        if "w" in mode:
            self._must_be_writable()
            return _File(lambda data: self.files.__setitem__(path, data))
        if path not in self.files:
            raise OSError(2, "No such file/directory")
        return io.BytesIO(self.files[path])


class _Named(tuple[Any, ...]):
    """As `sys.implementation`: a tuple with names."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[("name", "version", "_machine", "_mpy").index(name)]
        except ValueError:
            raise AttributeError(name) from None


class _File(io.BytesIO):
    def __init__(self, keep: Callable[[bytes], None]) -> None:
        super().__init__()
        self._keep = keep

    def close(self) -> None:
        if not self.closed:
            self._keep(self.getvalue())
        super().close()


class _Unplugged(BaseException):
    """The line has ended."""


@contextlib.contextmanager
def plugged_in(board: CircuitPython) -> Iterator[str]:
    """Its device."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    board.device = os.ttyname(slave)
    thread = threading.Thread(target=board.serve, args=(master,), daemon=True)
    thread.start()
    try:
        yield board.device
    finally:
        os.close(slave)
        board._typed.put(b"")
        board._interrupts = False
        if thread.ident is not None and thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(_Unplugged)
            )
        thread.join(5)
        os.close(master)


if __name__ == "__main__":
    with plugged_in(CircuitPython()) as place:
        print(place, flush=True)
        sys.stdin.read()
