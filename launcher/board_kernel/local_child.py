"""The child process of `%%local`: runs cells in one namespace, as a small Python kernel (see `local_python`)."""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import signal
import sys
import traceback
import types
from typing import Any

from . import board_module


class Namespace:
    """What the cells share."""

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self.module.__dict__["display"] = board_module.display
        self.count = 0

    def run(self, code: str) -> dict[str, Any]:
        """``{}``, or what went wrong."""
        self.count += 1
        name = f"<local {self.count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._run(code, name)
        except SystemExit as error:
            return _failure(error) if error.code else {}
        except BaseException as error:  # noqa: BLE001 - whatever a person's cell raises is shown to that person
            return _failure(error)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return {}

    def _run(self, code: str, name: str) -> None:
        tree = ast.parse(code, name)
        last: ast.Expr | None = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not code.rstrip().endswith(";"):
            found = tree.body.pop()
            assert isinstance(found, ast.Expr)
            last = found
        exec(compile(tree, name, "exec"), self.module.__dict__)  # noqa: S102  # that is what the cell is for
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), self.module.__dict__)  # noqa: S307
            if value is not None:
                self.module.__dict__["_"] = value
                _show(value)


def _show(value: Any) -> None:
    mime, data = board_module.guess(value)  # type: ignore[no-untyped-call]
    if mime == "text/plain" or data is None:
        print(f"\x1efk:= {repr(value)!r}")
    else:
        board_module.display(data, mime)


def _failure(error: BaseException) -> dict[str, Any]:
    # The first frames are ours.
    frames = traceback.TracebackException.from_exception(error)
    frames.stack[:] = [frame for frame in frames.stack if frame.filename != __file__]
    return {
        "ename": type(error).__name__,
        "evalue": str(error),
        "traceback": "".join(frames.format()).splitlines(),
    }


def _ask(prompt: object = "", verb: str = "input") -> str:
    print(f"\x1efk:{verb} {str(prompt)!r}", flush=True)
    line = sys.stdin.readline()
    if not line or line.startswith("!"):
        raise EOFError(line[1:].strip())
    return bytes.fromhex(line[1:].strip()).decode() if line.startswith("#") else line[1:].rstrip("\n")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between two cells there is nothing to interrupt
    word = sys.stdin.readline().strip()
    builtins.input = _ask
    builtins._fk_ask = _ask  # type: ignore[attr-defined]  # where `board_module.password` looks for it
    sys.modules["farkernel"] = sys.modules[board_module.__name__]
    namespace = Namespace()
    sys.modules["__main__"] = namespace.module
    while line := sys.stdin.readline():
        end = namespace.run(json.loads(line)["code"])
        print(word, file=sys.stderr, flush=True)
        print(word + json.dumps(end), flush=True)


if __name__ == "__main__":
    main()
