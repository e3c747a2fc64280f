"""What the local end's sockets promise, whichever way they are made (docs/architecture.md, section 6).

Two implementations: `sockets` (our own servers, NULL mechanism) and `curve` (pyzmq, for connection files with
Curve keys).  `sockets.open_sockets` chooses.  Everything runs in one event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

from ..agent.zmtp import Buffer
from ..errors import FarkernelError

Channel = Literal["shell", "control", "stdin", "iopub", "hb"]
CHANNELS: tuple[Channel, ...] = ("shell", "control", "stdin", "iopub", "hb")


class ConnectionInfoError(FarkernelError):
    """The content of a connection file that makes no sense."""

    kind: ClassVar[str] = "connection-info"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The connection file cannot be used: {problem}",
            "It is written by the front end for each start of a kernel: start the kernel again.",
        )


class BindError(FarkernelError):
    """An endpoint that a front end expects cannot be opened."""

    kind: ClassVar[str] = "bind"

    def __init__(self, endpoint: str, problem: str, advice: str) -> None:
        super().__init__(f"Cannot listen on {endpoint}: {problem}", advice)
        self.endpoint = endpoint


@dataclass(frozen=True)
class ConnectionInfo:
    """What a connection file says, checked.  With tcp a port 0 means: pick one."""

    transport: Literal["ipc", "tcp"]
    ip: str
    ports: Mapping[Channel, int]
    key: bytes = b""
    signature_scheme: str = "hmac-sha256"
    curve_publickey: bytes | None = None
    curve_secretkey: bytes | None = None

    @classmethod
    def from_dict(cls, info: Mapping[str, Any]) -> ConnectionInfo:
        """From a connection file's JSON, or from jupyter_client's connection info (keys as str or bytes)."""
        transport = info.get("transport", "tcp")
        if transport not in ("ipc", "tcp"):
            raise ConnectionInfoError(f"its transport is {transport!r:.40}")
        ip = info.get("ip", "127.0.0.1" if transport == "tcp" else None)
        if not isinstance(ip, str) or not ip or "\0" in ip:
            raise ConnectionInfoError("it has no ip")
        ports = {channel: _port(info, channel) for channel in CHANNELS}
        named = [port for port in ports.values() if port]
        if len(named) != len(set(named)) or (transport == "ipc" and len(named) < len(ports)):
            raise ConnectionInfoError("it needs five different ports")
        public, secret = _curve_key(info, "curve_publickey"), _curve_key(info, "curve_secretkey")
        if (public is None) != (secret is None):
            raise ConnectionInfoError("it has one of the two Curve keys")
        scheme = info.get("signature_scheme") or "hmac-sha256"
        return cls(transport, ip, ports, _as_bytes(info.get("key"), "key"), str(scheme), public, secret)

    def as_dict(self) -> dict[str, Any]:
        """The content of a connection file (JSON types only)."""
        info: dict[str, Any] = {"transport": self.transport, "ip": self.ip}
        info.update({f"{channel}_port": port for channel, port in self.ports.items()})
        info.update(key=self.key.decode(), signature_scheme=self.signature_scheme)
        if self.curve_publickey is not None and self.curve_secretkey is not None:
            info["curve_publickey"] = self.curve_publickey.decode()
            info["curve_secretkey"] = self.curve_secretkey.decode()
        return info

    def with_ports(self, ports: Mapping[Channel, int]) -> ConnectionInfo:
        return replace(self, ports=dict(ports))

    def endpoint(self, channel: Channel) -> str:
        """As ZeroMQ writes it."""
        port = self.ports[channel]
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{port}"
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"tcp://{host}:{port}"

    def __repr__(self) -> str:  # keys are no matter for logs
        return f"<ConnectionInfo {self.transport}://{self.ip}{' curve' if self.curve_publickey else ''}>"


def _port(info: Mapping[str, Any], channel: Channel) -> int:
    port = info.get(f"{channel}_port", 0)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ConnectionInfoError(f"its {channel}_port is {port!r:.40}")
    return port


def _as_bytes(value: Any, name: str) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ConnectionInfoError(f"its {name} is not a text")
    return value.encode("utf-8", "surrogateescape")


def _curve_key(info: Mapping[str, Any], name: str) -> bytes | None:
    key = _as_bytes(info.get(name), name)
    if key and len(key) != 40:
        raise ConnectionInfoError(f"its {name} does not have 40 characters")
    return key or None


class RouterSocket(Protocol):
    """ROUTER, for shell, control and stdin."""

    on_message: Callable[[bytes, list[bytes]], None]
    """identity, frames (without the identity)"""

    def send(self, identity: bytes, frames: Sequence[Buffer]) -> bool:
        """False: that client is gone (or took nothing for so long that it was dropped)."""

    def close(self) -> None: ...


class Subscriber(Protocol):
    """One connection to iopub (with Curve: all of them, see `curve`)."""

    pid: int
    """its process, 0 where that cannot be known"""
    missed: int
    """messages that it did not get, because it had taken nothing for too long"""


class PublishSocket(Protocol):
    """XPUB, verbose.  Messages are numbered as the agent numbers them; 0 is a message of our own."""

    on_subscribe: Callable[[Subscriber, bytes], None]
    """each subscription, each time; what is sent from here comes before anything else on this topic"""
    on_gone: Callable[[Subscriber], None]
    on_drained: Callable[[], None]
    """`full` has become False"""

    @property
    def full(self) -> bool:
        """A subscriber has over 8 MiB waiting: publish no more until `on_drained`.

        True until it has less than 2 MiB.  One that has taken nothing for 30 s does not count any more; what
        it misses is counted in its `missed`.
        """

    @property
    def subscribers(self) -> int:
        """How many have subscribed to something."""

    @property
    def written(self) -> int:
        """The number up to which every message has been fully written to every subscriber that counts."""

    def publish(self, frames: Sequence[Buffer], number: int, more: bool = False) -> int:
        """To how many it went.  A subscriber that has the message of this number does not get it again.

        It is written at the end of this turn of the loop, or, with ``more``, by `flush`, which must follow.
        """

    def flush(self) -> None:
        """Write what was published."""

    def send_to(self, subscriber: Subscriber, frames: Sequence[Buffer]) -> None:
        """To this one only (iopub_welcome); nothing happens if it is gone."""

    def close(self) -> None: ...


class HeartbeatSocket(Protocol):
    """Sends back what it gets."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class LocalSockets:
    """The five open endpoints of one kernel; `connection` has the ports that were really taken."""

    connection: ConnectionInfo
    shell: RouterSocket
    control: RouterSocket
    stdin: RouterSocket
    iopub: PublishSocket
    heartbeat: HeartbeatSocket

    def close(self) -> None:
        """Closes every connection, and removes the socket files."""
        for socket in (self.shell, self.control, self.stdin, self.iopub, self.heartbeat):
            socket.close()
