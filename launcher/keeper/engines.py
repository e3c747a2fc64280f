"""The engine across several nodes that a target asks for (docs/architecture.md §11): what `start` is told of it, and
how it goes on afterwards: said in the notebook, listed, and its dashboard made reachable here.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import platform
import secrets
from typing import Any, Protocol

from ...backends import find_backend
from ...backends.contract import BringsKernel
from ..agent.channels import Priority
from ..agent.frames import Buffer
from ..configuration import Target
from ..errors import FarkernelError
from ..text import one_line
from .far_agent import FarAgent

log = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 20
_MOST_NODES = 4096
_LIFETIME = datetime.timedelta(days=3650)
_STATES = ("starting", "joining", "ready", "degraded", "failed", "ended")


async def wanted(target: Target) -> dict[str, Any]:
    """For `start`: nothing, unless the target has an engine.  What is secret is made for this one engine."""
    scheme = target.address.scheme
    if target.cluster is None or isinstance(find_backend(scheme), BringsKernel):
        return {}
    nodes = target.resources.nodes or 1 + len(target.engine_hosts)
    cluster = {
        "kind": target.cluster,
        "nodes": nodes,
        "launcher": "ssh" if target.address.is_host else scheme,
        "hosts": list(target.engine_hosts) if target.address.is_host else [],
        "environment": dict(target.env),
        "container": target.container is not None,
        "secrets": await asyncio.to_thread(make_secrets),
    }
    return {"cluster": cluster}


def make_secrets() -> dict[str, str]:
    """A word, and a certificate that is its own authority: whoever has its key belongs to the engine."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "farkernel engine")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "key": private.decode(),
        "word": secrets.token_hex(32),
    }


def read(said: Any) -> dict[str, Any]:
    """What an engine says of itself, in its form whatever was sent: it goes into notebooks and onto terminals."""
    told = said if isinstance(said, dict) else {}
    words = {
        name: one_line(told.get(name) or "")[:2000]
        for name in ("kind", "title", "connects", "text", "advice", "address")
    }
    state = next((each for each in _STATES if each == told.get("state")), "failed")
    nodes = told["nodes"] if isinstance(told.get("nodes"), list) else []
    return {
        **words,
        "state": state,
        "nodes": [
            {name: one_line(each.get(name) or "")[:500] for name in ("node", "state", "text")}
            for each in nodes[:_MOST_NODES]
            if isinstance(each, dict)
        ],
        "dashboard": _dashboard(told.get("dashboard")),
        "socket": told["socket"] if isinstance(told.get("socket"), str) else "",
        "url": "",
    }


def _dashboard(said: Any) -> dict[str, Any] | None:
    if not isinstance(said, dict) or not isinstance(said.get("port"), int) or not 0 < said["port"] < 65536:
        return None
    path = str(said.get("path") or "/")
    return {"port": said["port"], "path": path if path.isascii() and path.isprintable() else "/"}


def sentence(engine: dict[str, Any]) -> str:
    """For the notebook."""
    state, connects = engine["state"], f"{engine['connects']} connects to it."
    told = [each.rstrip(".") + "." for each in (engine["text"], engine["advice"]) if each]
    if state == "degraded":
        parts = [*told, connects]
    elif state == "ready":
        names = [each["node"] for each in engine["nodes"]]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        parts = [f"{engine['title']} runs on {shown}: {connects}"]
    else:
        parts = [*told, "The kernel runs without it."]
    if engine["url"]:
        parts.append(f"Dashboard: {engine['url']}")
    return " ".join(parts)


class Dashboard(Protocol):
    """A port of this machine that leads to the engine's."""

    port: int

    def close(self) -> None: ...


class Host(Protocol):
    """The kernel, as its engine's watch sees it."""

    id: str

    def engine_changed(self, engine: dict[str, Any] | None) -> None:
        """It is to be written down."""

    def engine_said(self, text: str) -> None:
        """For the cell that runs, or the next one."""

    async def open_dashboard(self, port: int, same_machine: bool) -> Dashboard: ...


class EngineWatch:
    """Follows one kernel's engine, over a channel to the socket of what holds it, from start to the kernel's end."""

    def __init__(self, host: Host, engine: dict[str, Any] | None) -> None:
        self.engine = engine
        if engine is not None:
            engine["url"] = ""  # a former keeper's
        self._host = host
        self._said = ""
        self._agent: FarAgent | None = None
        self._channel = 0
        self._rest = b""
        self._heard = False
        self._dashboard: Dashboard | None = None
        self._port = 0
        self._opening = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        state = self.engine["state"] if self.engine else "no engine"
        return f"<EngineWatch of {self._host.id}, {state}, channel {self._channel}>"

    def started(self, answer: Any, agent: FarAgent) -> None:
        """The kernel has been started; ``answer`` is what the agent said of the engine, or nothing."""
        if not answer:
            self.engine = None
            self._host.engine_changed(None)
            return
        self._take(read(answer), say=True)
        self.follow(agent)

    def follow(self, agent: FarAgent) -> None:
        """Hear of it from now on; the agent may have lost the session in which we did."""
        if self.engine is None or not self.engine["socket"] or self.engine["state"] == "ended":
            return
        self._chore(self._connect(agent))

    async def _connect(self, agent: FarAgent) -> None:
        if self._agent is agent and self._channel:
            agent.close_channel(self._channel)
        self._agent, self._rest, self._heard = agent, b"", False
        self._channel = channel = agent.open_channel(Priority.PORT, self._received, True, self._lost)
        assert self.engine is not None
        try:
            await agent.request("connect", channel=channel, path=self.engine["socket"])
        except FarkernelError as error:
            log.info("kernel %s: its engine cannot be watched: %s", self._host.id, error)
            agent.forget_channels([channel])
            if error.as_dict()["kind"] not in ("link",):
                self._gone()

    def _received(self, data: Buffer) -> None:
        agent = self._agent
        if not data:
            self._channel = 0
            self._gone()
            return
        if agent is not None:
            agent.link.consumed(self._channel, len(data))
            agent.driver.pump()
        *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
        self._rest = self._rest[:_LONGEST_LINE]
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                self._heard_of(json.loads(line))

    def _heard_of(self, said: Any) -> None:
        if self.engine is None:
            return
        self._take(
            read({**(said if isinstance(said, dict) else {}), "socket": self.engine["socket"]}), say=True
        )

    def _lost(self) -> None:
        """The session is over; the next one follows again."""
        self._channel = 0

    def _gone(self) -> None:
        """What held it is no more, and it did not say why."""
        if self.engine is not None and self.engine["state"] not in ("failed", "ended"):
            text = f"{self.engine['title']} has ended: what held it together is gone"
            self._take(
                {
                    **self.engine,
                    "state": "ended",
                    "text": text,
                    "advice": "Restart the kernel for a fresh one",
                },
                True,
            )

    def _take(self, engine: dict[str, Any], say: bool) -> None:
        self.engine = engine
        if engine["state"] in ("starting", "joining"):
            say = False
        dashboard = engine["dashboard"]
        if dashboard is not None and dashboard["port"] != self._port:
            self._port = dashboard["port"]
            self._opening = True
            self._chore(self._forward(dashboard["port"], say))
        if self._opening:
            return  # all is said when it is known where the dashboard is
        if self._dashboard is not None and dashboard is not None:
            engine["url"] = f"http://127.0.0.1:{self._dashboard.port}{dashboard['path']}"
        self._host.engine_changed(engine)
        if say:
            self._say()

    async def _forward(self, port: int, say: bool) -> None:
        former, self._dashboard = self._dashboard, None
        if former is not None:
            former.close()
        about = self._agent.link.peer.get("about", {}) if self._agent is not None else {}
        try:
            self._dashboard = await self._host.open_dashboard(port, about.get("host") == platform.node())
        except FarkernelError as error:
            log.warning("kernel %s: no dashboard: %s", self._host.id, error)
        finally:
            self._opening = False
        if self.engine is not None:
            self._take(self.engine, say or self.engine["state"] not in ("starting", "joining"))

    def _say(self) -> None:
        assert self.engine is not None
        text = sentence(self.engine)
        if text != self._said:
            self._said = text
            self._host.engine_said(text)

    def close(self) -> None:
        """The kernel's life is over, or the keeper's."""
        for task in list(self._tasks):
            task.cancel()
        if self._agent is not None and self._channel:
            self._agent.close_channel(self._channel)
        self._channel = 0
        self._close_dashboard()

    def _close_dashboard(self) -> None:
        dashboard, self._dashboard, self._port = self._dashboard, None, 0
        if dashboard is not None:
            dashboard.close()

    def _chore(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(
            work, name=f"engine {self._host.id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("kernel %s: its engine", self._host.id, exc_info=task.exception())
