"""What Jupyter starts kernels through: a thin front end of the keeper, in the notebook server's process.

The order of Jupyter's calls and their traps are in DESIGN §4.  In short: start is `pre_launch`,
`launch_kernel`, `post_launch`; a restart is the same instance with the three again; only `cleanup` and
`shutdown_requested` tell truly whether it is a restart.  So whatever stops a life keeps the allocation, and
`cleanup(restart=False)` gives it back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from jupyter_client.connect import KernelConnectionInfo, port_names
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Dict

from .client import KeeperClient
from .client_async import request, shared_client
from .client_protocol import NotAKeeper, exit_code
from .errors import FarkernelError
from .text import one_line

LAUNCH_DEADLINE = 60.0
SHORTEST_SHUTDOWN = 10.0
JUPYTERS_OWN = {"kernel_id", "kernel_spec", "parent", "log"}


class FarkernelProvisioner(KernelProvisionerBase):
    """A kernel that the keeper holds; `settings` is what the menu entry says about it."""

    settings = Dict(help="What the menu entry says: target, kernel, …").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        # All but these comes from kernel.json; what of it is valid is for the configuration to say, not for
        # traits.
        settings = {name: kwargs.pop(name) for name in kwargs.keys() - JUPYTERS_OWN}
        if settings:
            kwargs["settings"] = settings
        super().__init__(**kwargs)
        self._kernel: str | None = None
        self._life = 0
        self._running = False
        self._detached = False
        self._obey: bool | None = None
        self._asked_to_stop = False
        self._restart_limit: int | None = None
        self._last: dict[str, Any] = {}
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "detached" if self._detached else self._last.get("state", "not started")
        return f"<FarkernelProvisioner kernel={self._kernel} life={self._life} {state}>"

    @property
    def _client(self) -> KeeperClient:
        return shared_client()

    # -- start ------------------------------------------------------------------------------------------

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        kwargs.pop("extra_arguments", None)
        kwargs.pop("transport_encryption", None)
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Returns once the local end is bound, however long the queue is; raises what the keeper says."""
        restart = self._life > 0
        if not restart:
            self._remove_stale_connection_file()
        environment = kwargs.get("env") or {}
        cwd = kwargs.get("cwd")
        arguments = {
            "kernel": self._kernel or self.kernel_id,
            "entry": getattr(self.parent, "kernel_name", None),
            "settings": dict(self.settings),
            "connection": self._asked_connection(),
            "cwd": None if cwd is None else os.fspath(cwd),
            "env": self._useful_environment(environment),
            "notebook": environment.get("JPY_SESSION_NAME"),
            "front": "provisioner",
            "restart": restart,
            "life": self._life + 1 if restart else None,
        }
        try:
            answer = await request(self._client, "launch", LAUNCH_DEADLINE, **arguments)
            self.connection_info = read_connection(answer.get("connection"))
        except BaseException:
            # Nobody will ask about this kernel any more; it may be one taken up again, so it is not stopped.
            with suppress(FarkernelError):
                self._client.submit("detach", {"kernel": arguments["kernel"]}, lambda _: None)
            raise
        self._kernel = str(answer.get("kernel") or arguments["kernel"])
        self._life = life if isinstance(life := answer.get("life"), int) else self._life + 1
        self._running, self._detached, self._asked_to_stop = True, False, False
        self._limit_restarts(None)
        if not restart:
            self._client.watch(self._kernel, self._noticed)
        return self.connection_info

    def _useful_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The far end has an environment of its own: only what was set for this kernel goes there."""
        meant = set(getattr(self.kernel_spec, "env", None) or {})
        return {
            name: value
            for name, value in environment.items()
            if name in meant or name == "JPY_SESSION_NAME" or os.environ.get(name) != value
        }

    def _remove_stale_connection_file(self) -> None:
        # Left by a server that was killed; with equal content the manager would not load it, and then raise.
        manager = self.parent
        path = getattr(manager, "connection_file", "")
        if path and not getattr(manager, "_connection_file_written", True):
            with suppress(OSError):
                os.remove(path)

    def _asked_connection(self) -> dict[str, Any] | None:
        """None: the keeper's own, ipc in a private directory; else what the manager insists on."""
        manager: Any = self.parent
        if self._obey is None:
            self._obey = manager is not None and asks_for_own_connection(manager)
        if not self._obey:
            return None
        if wants_curve(manager) and manager.curve_publickey is None:
            import zmq

            manager.curve_publickey, manager.curve_secretkey = zmq.curve_keypair()
        manager.write_connection_file()
        info = dict(manager.get_connection_info())
        info["key"] = info["key"].decode()
        return info

    # -- state ------------------------------------------------------------------------------------------

    def _noticed(self, event: dict[str, Any]) -> None:
        """On the client's thread: the kernel's state has changed."""
        with self._lock:
            self._last = event
            over = self._exit_code() is not None
            waiters = list(self._waiters) if over else []
        if over:
            reason = event.get("reason")
            text = reason.get("text") if isinstance(reason, dict) else None
            self.log.info("Kernel %s has ended: %s", self._kernel, one_line(text or "no reason given"))
        for loop, future in waiters:
            with suppress(RuntimeError):  # that loop is over, and nobody waits in it
                loop.call_soon_threadsafe(wake, future)

    def _exit_code(self) -> int | None:
        """None while it lives; an end of an earlier life says nothing about this one."""
        if self._detached:
            return 0
        life = self._last.get("life")
        if self._last.get("state") != "ended" or (isinstance(life, int) and life < self._life):
            return None
        return exit_code(self._last)

    @property
    def has_process(self) -> bool:
        return self._running

    async def poll(self) -> int | None:
        if not self._running:
            return 0
        code = self._exit_code()
        if code is not None and self._stopped_elsewhere():
            self._limit_restarts(0)
        return code

    def _stopped_elsewhere(self) -> bool:
        """Ended as somebody wished, but not by way of this manager (`farkernel stop`, `keep`, `idle`), or with its
        allocation: to start it again would mean another job, and only the user can want that.
        """
        reason = self._last.get("reason")
        kind = reason.get("kind") if isinstance(reason, dict) else None
        over = isinstance(reason, dict) and bool(reason.get("over"))
        return (over or kind in ("stopped", "keep", "idle")) and not (self._asked_to_stop or self._detached)

    def _limit_restarts(self, limit: int | None) -> None:
        """With 0, Jupyter's restarter declares the kernel dead instead of starting it; None undoes that."""
        restarter = getattr(self.parent, "_restarter", None)
        if restarter is None:
            return
        if limit is not None and self._restart_limit is None:
            self._restart_limit, restarter.restart_limit = restarter.restart_limit, limit
        elif limit is None and self._restart_limit is not None:
            restarter.restart_limit, self._restart_limit = self._restart_limit, None

    async def wait(self) -> int | None:
        loop = asyncio.get_running_loop()
        while self._running and self._exit_code() is None:
            entry = (loop, loop.create_future())
            with self._lock:
                self._waiters.append(entry)
            try:
                if self._exit_code() is None:
                    await entry[1]
            finally:
                with self._lock:
                    self._waiters.remove(entry)
        code = await self.poll()
        self._running = False
        return code

    # -- signals and the end ----------------------------------------------------------------------------

    async def send_signal(self, signum: int) -> None:
        if signum == 0 or await self.poll() is not None:
            return
        if signum == signal.SIGKILL:
            await self.kill()
        elif signum == signal.SIGTERM:
            await self.terminate()
        elif signum != signal.SIGINT:
            await request(self._client, "signal", kernel=self._kernel, signum=int(signum))
        elif not self._server_stops():
            await self._interrupt()

    async def _interrupt(self) -> None:
        try:
            await request(self._client, "interrupt", kernel=self._kernel)
        except FarkernelError as error:
            # Jupyter interrupts before each shutdown, and an error would keep the kernel from being shut
            # down.
            if not getattr(self.parent, "shutting_down", False):
                raise
            self.log.warning("%s", error)

    async def kill(self, restart: bool = False) -> None:
        await self._stop(now=True)

    async def terminate(self, restart: bool = False) -> None:
        await self._stop(now=False)

    async def _stop(self, now: bool) -> None:
        if await self.poll() is not None:
            return
        self._asked_to_stop = True
        if self._server_stops():
            await self._detach()
        else:
            await self._tell("stop", kernel=self._kernel, now=now, restart=True)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The keeper holds the `shutdown_request` that went before, until it is told what is meant."""
        if self._kernel is None:
            return
        self._asked_to_stop = True
        if not restart and self._server_stops():
            await self._detach()
        else:
            await self._tell("shutdown", kernel=self._kernel, restart=restart)

    async def cleanup(self, restart: bool = False) -> None:
        if self._kernel is None:
            return
        if not self._detached:
            await self._tell("cleanup", kernel=self._kernel, restart=restart)
        if not restart:
            self._running = False
            self._client.unwatch(self._kernel)

    async def _detach(self) -> None:
        await self._tell("detach", kernel=self._kernel)
        self._detached = True

    async def _tell(self, do: str, **arguments: Any) -> None:
        """Shutting down must go on whatever the keeper says to one of its steps."""
        try:
            await request(self._client, do, SHORTEST_SHUTDOWN, **arguments)
        except FarkernelError as error:
            self.log.warning("%s", error)

    def _server_stops(self) -> bool:
        """Whether the server is going away, as opposed to a person who wants this kernel ended."""
        parent = self.parent
        while parent is not None:
            stopping = getattr(parent, "_stopping", None)
            if isinstance(stopping, bool):
                return stopping
            if any(ancestor.__name__ == "ServerApp" for ancestor in type(parent).__mro__):
                # The private attribute is gone: rather a kernel too many, which `keep` will end, than one too
                # few.
                return True
            parent = getattr(parent, "parent", None)
        return False

    def get_shutdown_wait_time(self, recommended: float = 5.0) -> float:
        """Jupyter kills after this time; a far kernel needs a little longer to say goodbye."""
        return max(recommended, SHORTEST_SHUTDOWN)

    # -- for managers that persist ----------------------------------------------------------------------

    async def get_provisioner_info(self) -> dict[str, Any]:
        info = await super().get_provisioner_info()
        info.update({"kernel": self._kernel, "life": self._life, "settings": dict(self.settings)})
        return info

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        await super().load_provisioner_info(provisioner_info)
        self._kernel = provisioner_info["kernel"]
        self._life = provisioner_info["life"]
        self.settings = provisioner_info["settings"]
        if self._kernel is not None:
            self._running = True
            self._client.watch(self._kernel, self._noticed)


def wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def read_connection(found: object) -> KernelConnectionInfo:
    """The keeper's connection in the form that a manager insists on: every field, the key as bytes."""
    if not isinstance(found, dict):
        raise NotAKeeper(f"connection: {found!r}")
    try:
        info: dict[str, Any] = {name: int(found[name]) for name in port_names}
        info["ip"], info["transport"] = str(found["ip"]), str(found["transport"])
        info["signature_scheme"] = str(found["signature_scheme"])
        info["key"] = str(found["key"]).encode()
    except (KeyError, TypeError, ValueError) as error:
        raise NotAKeeper(f"connection: {error!r}") from None
    if found.get("curve_publickey") and found.get("curve_secretkey"):
        info["curve_publickey"] = str(found["curve_publickey"])
        info["curve_secretkey"] = str(found["curve_secretkey"])
    return info  # type: ignore[return-value]


def wants_curve(manager: Any) -> bool:
    """Whether this manager (jupyter_client 8.9 and newer) gives its kernels Curve keys."""
    policy = getattr(manager, "_transport_encryption_policy", None)
    if policy is None:
        return False
    return policy() == "required" or (
        policy() == "auto" and bool(manager._kernel_supports_curve_encryption())
    )


def asks_for_own_connection(manager: Any) -> bool:
    """Whether someone configured TCP, an address, ports or encryption; a mere default is not asking."""
    if wants_curve(manager):
        return True
    configured: dict[str, Any] = {}
    for section in type(manager).section_names():
        if section in manager.config:
            configured.update(manager.config[section])
    if manager.transport == "ipc":
        return False
    if configured.keys() & {"transport", "ip", *port_names}:
        return True
    return any(getattr(manager, name) for name in port_names)
