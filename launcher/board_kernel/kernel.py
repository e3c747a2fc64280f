"""The kernel itself: Jupyter's requests, one at a time on shell, at once on control.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..errors import FarkernelError
from ..messages import Message, MessageError
from . import answers, completeness
from .errors import CellFailed
from .held import Boards
from .history import History
from .outputs import CellOutput
from .runner import CellRunner, Interrupted
from .running import NoAnswer
from .wire import Channel, Wire

log = logging.getLogger(__name__)

# The first answer to kernel_info shows the firmware, if the board is quick (DESIGN §4: front ends wait a minute).
_INFO_PATIENCE = 2.0
# Advice about boards speaks of commands; here are magics of the same names.
_AS_MAGIC = re.compile(r"`farkernel board (ls|rm|mkdir)`")
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


class Kernel:
    """One notebook's kernel, from `open` until `ended` is set."""

    def __init__(self, boards: Boards) -> None:
        self.boards = boards
        self.ended = asyncio.Event()
        self.history = History()
        self.runner = CellRunner(boards, self.history)
        self.wire: Wire
        self._count = 0
        self._queue: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._current: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[str] | None = None
        self._asking = asyncio.Lock()
        self._chores: set[asyncio.Task[None]] = set()
        self._first_board = asyncio.Event()
        self._failed = False  # the cells that wait are not to be run

    def __repr__(self) -> str:
        return f"<Kernel [{self._count}], {len(self._queue)} waiting, boards {self.boards.names}>"

    # -- life

    async def open(self, wire: Wire) -> None:
        """Begin to answer, and to look for the board."""
        self.wire = wire
        self.wire.publish(wire.composer.status("starting"))
        self._chore(self._work(), "requests")
        self._chore(self._find_board(), "board")

    async def _find_board(self) -> None:
        """So that a board that is there is ready before the first cell; what is wrong is told in that cell."""
        try:
            if self.boards.present is not None:
                await self.boards.present.ready(lambda sentence: None, patience=0)
        except FarkernelError as error:
            log.info("%s", error)
        finally:
            self._first_board.set()

    async def close(self, reset: bool) -> None:
        """Leave the boards as others want to find them."""
        for task in list(self._chores):
            task.cancel()
        await self.runner.close()
        await self.boards.release_all(reset)
        self.wire.close()

    def _chore(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._chores.add(task)
        task.add_done_callback(self._chore_done)
        return task

    def _chore_done(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    # -- requests

    def on_request(self, channel: Channel, message: Message) -> None:
        """From the wire; verified."""
        if channel == "stdin":
            self._take_answer(message)
        elif channel == "control":
            self._chore(self._control(message), message.msg_type)
        else:
            self._queue.append(message)
            self._arrived.set()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                message = self._queue.popleft()
                self._current = asyncio.get_running_loop().create_task(self._shell(message))
                await asyncio.wait({self._current})
                if not self._current.cancelled() and self._current.exception() is not None:
                    error = self._current.exception()
                    log.error("%s failed", message.msg_type, exc_info=error)
                    self._internal_error(message, error)
                self._status("idle", message)
                if self._failed:
                    self._failed = False
                    self._abort_waiting()

    def _internal_error(self, message: Message, error: BaseException | None) -> None:
        """A bug of ours must not leave a cell waiting for ever."""
        name, text = type(error).__name__, str(error)
        lines = [f"{_RED}{name}{_PLAIN}: {text}", "This is a fault in Farkernel; the kernel's log says more."]
        self.wire.publish(self.wire.composer.error(message, name, text, lines))
        if message.msg_type == "execute_request":
            reply = self.wire.composer.execute_reply_error(message, name, text, lines, self._count)
        else:
            reply = self.wire.composer.error_reply(message, name, text, lines)
        self.wire.reply("shell", reply)

    async def _shell(self, message: Message) -> None:
        self._status("busy", message)
        kind = message.msg_type
        try:
            content = message.content
        except MessageError as error:
            log.warning("%s: %s", kind, error)
            return
        if kind == "execute_request":
            await self._execute(message, content)
        elif kind == "kernel_info_request":
            await self._kernel_info("shell", message)
        elif kind in ("complete_request", "inspect_request"):
            await self._look(message, kind, content)
        elif kind == "is_complete_request":
            status, indent = completeness.judge(str(content.get("code", "")))
            reply = {"status": status} | ({"indent": indent} if status == "incomplete" else {})
            self._reply("shell", message, reply)
        elif kind == "history_request":
            self._reply("shell", message, {"status": "ok", "history": self.history.answer(content)})
        elif kind == "comm_info_request":
            self._reply("shell", message, {"status": "ok", "comms": {}})
        elif kind == "comm_open":  # boards have no widgets: say so, as the protocol asks
            self.wire.publish(
                self.wire.composer.compose(
                    "comm_close", {"comm_id": content.get("comm_id"), "data": {}}, message, [b"comm_close"]
                )
            )
        elif kind == "shutdown_request":
            await self._shutdown("shell", message)
        else:
            log.info("a %s, which is not known here", kind)

    async def _control(self, message: Message) -> None:
        self._status("busy", message)
        try:
            kind = message.msg_type
            if kind == "kernel_info_request":
                await self._kernel_info("control", message)
            elif kind == "interrupt_request":
                self.interrupt()
                self._reply("control", message, {"status": "ok"})
            elif kind == "shutdown_request":
                await self._shutdown("control", message)
            else:
                log.info("a %s on control, which is not known here", kind)
        finally:
            self._status("idle", message)

    def _reply(self, channel: Channel, message: Message, content: Mapping[str, Any]) -> None:
        self.wire.reply(channel, self.wire.composer.reply(message, content))

    def _status(self, state: str, message: Message) -> None:
        self.wire.publish(self.wire.composer.status(state, message))

    async def _kernel_info(self, channel: Channel, message: Message) -> None:
        try:
            async with asyncio.timeout(_INFO_PATIENCE):
                await self._first_board.wait()
        except TimeoutError:
            log.debug("kernel_info is answered before the board")
        self._reply(channel, message, answers.kernel_info(self.boards.present))

    async def _shutdown(self, channel: Channel, message: Message) -> None:
        restart = bool(message.content.get("restart"))
        self._queue.clear()
        self.interrupt()
        reply = self.wire.composer.shutdown_reply(message, restart)
        self.wire.reply(channel, reply)
        self.ended.set()

    # -- cells

    async def _execute(self, message: Message, content: Mapping[str, Any]) -> None:
        code = str(content.get("code", ""))
        silent = bool(content.get("silent", False))
        stores = bool(content.get("store_history", True)) and not silent
        if stores:
            self._count += 1
        composer = self.wire.composer
        if not silent:
            self.wire.publish(composer.execute_input(message, code, self._count))
            self.history.add(self._count, code) if stores and code.strip() else None
        output = CellOutput(composer, self.wire.publish, message, self._count, silent)

        async def ask(prompt: str, password: bool) -> str:
            return await self._ask(message, bool(content.get("allow_stdin", False)), prompt, password)

        payload: list[dict[str, Any]] = []
        failure = await self._run_cell(code, output, ask, payload)
        output.flush()
        if stores and output.last_result:
            self.history.set_output(self._count, output.last_result)
        if failure is not None:
            ename, evalue, lines = failure
            if not silent:
                output.error(ename, evalue, lines)
            self.wire.reply("shell", composer.execute_reply_error(message, ename, evalue, lines, self._count))
            self._failed = bool(content.get("stop_on_error", True))
            return
        wanted = content.get("user_expressions")
        values = await self.runner.user_expressions(wanted if isinstance(wanted, dict) else {})
        reply = {
            "status": "ok",
            "execution_count": self._count,
            "user_expressions": values,
            "payload": payload,
        }
        self._reply("shell", message, reply)

    async def _run_cell(
        self, code: str, output: CellOutput, ask: Any, payload: list[dict[str, Any]]
    ) -> tuple[str, str, list[str]] | None:
        """Error name, value and lines, if it failed."""
        try:
            await self.runner.run(code, output, ask, payload)
        except CellFailed as failed:
            return failed.ename, failed.evalue, failed.lines
        except Interrupted:
            return "KeyboardInterrupt", "", [f"{_RED}KeyboardInterrupt{_PLAIN}"]
        except FarkernelError as error:
            name = type(error).__name__
            lines = [f"{_RED}{name}{_PLAIN}: {error.what}"]
            advice = _AS_MAGIC.sub(r"%\1", error.advice)
            return name, str(error), [*lines, advice] if advice else lines
        return None

    def _abort_waiting(self) -> None:
        """After an error: the cells that were sent with the one that failed."""
        waiting, self._queue = self._queue, deque()
        for message in waiting:
            if message.msg_type != "execute_request":
                self._queue.append(message)
                continue
            self._status("busy", message)
            self.wire.reply("shell", self.wire.composer.execute_reply_aborted(message))
            self._status("idle", message)

    def interrupt(self) -> None:
        """By message or signal; nothing happens when nothing runs."""
        self._chore(self.runner.interrupt(), "interrupt")

    # -- questions

    async def _ask(self, parent: Message, allowed: bool, prompt: str, password: bool) -> str:
        if not allowed:
            raise NoAnswer("input() cannot be asked from here: the front end takes no questions")
        async with self._asking:  # several boards may ask at the same time
            self._answer = asyncio.get_running_loop().create_future()
            self.wire.reply("stdin", self.wire.composer.input_request(parent, prompt, password))
            try:
                return await self._answer
            finally:
                self._answer = None

    def _take_answer(self, message: Message) -> None:
        if message.msg_type != "input_reply" or self._answer is None or self._answer.done():
            return
        try:
            self._answer.set_result(str(message.content.get("value", "")))
        except MessageError as error:
            log.warning("an answer: %s", error)

    # -- looking

    async def _look(self, message: Message, kind: str, content: Mapping[str, Any]) -> None:
        code = str(content.get("code", ""))
        cursor = content.get("cursor_pos")
        position = cursor if isinstance(cursor, int) and 0 <= cursor <= len(code) else len(code)
        if kind == "complete_request":
            reply = await self.runner.complete(code, position)
        else:
            reply = await self.runner.inspect(code, position, int(bool(content.get("detail_level"))))
        self._reply("shell", message, reply)
