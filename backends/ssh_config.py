"""What ssh_config says of a host, as `ssh -G` prints it: typed, with its tokens expanded.

`ssh -G` knows Include, Match, Match exec, canonicalisation and every default of this machine, so that nothing of this
has to be understood here.  Where there is no ssh program, asyncssh's own reader of ssh_config takes its place.
"""

from __future__ import annotations

import functools
import getpass
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .contract import RouteError

Values = Mapping[str, Sequence[str]]

_DEADLINE = 15.0
_REMEMBERED = 10.0
_MOST_JUMPS = 8
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+$\\-]*", re.ASCII)
_ALGORITHMS = ("ciphers", "kexalgorithms", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms")


class ConfigError(RouteError):
    """ssh_config cannot be read, or says what cannot be."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"ssh_config cannot be used for {host}: {why}",
            f"See what this says: ssh -G {host}",
            needs_user=True,
        )


@dataclass(frozen=True)
class Place:
    """Whom to ask for, before ssh_config has been read: from an address or a ProxyJump."""

    host: str
    user: str | None = None
    port: int | None = None
    config: str | None = None  # a file instead of the usual ones

    def __str__(self) -> str:
        return f"{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True)
class HostSettings:
    """Everything that decides how one host is logged in to: equal settings are the same login."""

    place: Place = field(compare=False)
    host: str
    port: int
    user: str
    via: HostSettings | None = None  # ProxyJump
    proxy_command: str | None = None
    family: str = "any"
    connect_timeout: int | None = None
    alive_interval: int = 0
    alive_count: int = 3
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None  # a path, "none", or None: as SSH_AUTH_SOCK says
    methods: tuple[str, ...] = ()  # preferred, in that order; empty: the client's own order
    public_key: bool = True
    password: bool = True
    interactive: bool = True
    gssapi: bool = False
    prompts: int = 3
    known_hosts: tuple[str, ...] = ()
    more_known_hosts: tuple[str, ...] = ()
    host_key_alias: str | None = None
    strict: str = "ask"  # "ask", "yes", "accept-new"
    hash_known_hosts: bool = False
    compression: bool = False
    algorithms: tuple[tuple[str, tuple[str, ...]], ...] = ()  # only what differs from this machine's defaults
    set_env: tuple[tuple[str, str], ...] = ()
    send_env: tuple[str, ...] = ()
    control_path: str | None = None
    unusual: tuple[str, ...] = ()  # keywords in use that only the ssh program understands

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def known_as(self) -> str:
        """The name under which the host's key stands in known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"

    def chosen(self, keyword: str) -> tuple[str, ...]:
        """The algorithms that ssh_config names for it; empty: nothing out of the ordinary."""
        return dict(self.algorithms).get(keyword, ())


def read_settings(place: Place) -> HostSettings:
    """Ask ssh_config, also about each jump host.  Blocks for some milliseconds; answers are remembered for a moment.

    Raises `ConfigError`.
    """
    return _read(place, 0, int(time.monotonic() / _REMEMBERED))


@functools.lru_cache(maxsize=4096)
def _read(place: Place, depth: int, moment: int) -> HostSettings:
    if depth > _MOST_JUMPS:
        raise ConfigError(
            str(place), f"there are more than {_MOST_JUMPS} jumps on the way, or they go in a circle"
        )
    values = look_up(place)
    via: HostSettings | None = None
    for jump in jumps(place, values):
        # The first of several is reached as its own settings say, the others through the one before (ssh(1), -J).
        via = _read(jump, depth + 1, moment) if via is None else settings(jump, look_up(jump), via)
    return settings(place, values, via)


def look_up(place: Place) -> dict[str, list[str]]:
    """The keywords of ssh_config that apply, in lower case, each with its values."""
    _check(place)
    if shutil.which("ssh") is None:
        from .ssh_config_fallback import look_up_without_ssh

        return look_up_without_ssh(place)
    return parse(_ask_ssh(place))


def _check(place: Place) -> None:
    """They become arguments: whoever wrote the configuration, no name begins with a dash or holds a blank."""
    if not _HOST.fullmatch(place.host):
        raise ConfigError(repr(place.host), "that cannot be the name of a host")
    if place.user is not None and not _USER.fullmatch(place.user):
        raise ConfigError(place.host, f"{place.user!r} cannot be the name of a user")


def _ask_ssh(place: Place) -> str:
    command = ["ssh", "-G", *place_arguments(place)]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(str(place), f"ssh cannot be run: {error.strerror}") from error
    with child:
        try:
            said, complained = child.communicate(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # what a `Match exec` started, too
            raise ConfigError(str(place), f"ssh -G did not answer within {_DEADLINE:.0f} s") from None
    if child.returncode != 0:
        complaint = complained.decode("utf-8", "replace").strip()
        raise ConfigError(str(place), complaint.splitlines()[-1] if complaint else "ssh -G failed")
    return said.decode("utf-8", "replace")


def place_arguments(place: Place) -> list[str]:
    """The arguments of ssh that name the place: each its own word, nothing that could pass for an option."""
    arguments = ["-F", place.config] if place.config else []
    if place.user is not None:
        arguments += ["-l", place.user]
    if place.port is not None:
        arguments += ["-p", str(place.port)]
    return [*arguments, "--", place.host]


def parse(text: str) -> dict[str, list[str]]:
    """The lines of `ssh -G`: a keyword and its value; some keywords come more than once."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        if keyword:
            found.setdefault(keyword.lower(), []).append(value)
    return found


@functools.lru_cache(maxsize=1)
def usual_algorithms() -> dict[str, list[str]]:
    """What `ssh -G` says where nothing is configured: the algorithms of this machine's ssh."""
    if shutil.which("ssh") is None:
        return {}
    try:
        return parse(_ask_ssh(Place("localhost", config="none")))
    except ConfigError:  # an ssh that does not know "none" (before 6.6)
        return {}


def jumps(place: Place, values: Values) -> list[Place]:
    """The hops of ProxyJump, nearest first; each is looked up in the same ssh_config."""
    text = _one(values, "proxyjump")
    if text is None or text.lower() == "none":
        return []
    found = []
    for hop in text.split(","):
        match = re.fullmatch(
            r"(?:ssh://)?(?:([^@\s]+)@)?(?:\[([^\]]+)\]|([^\s:]+))(?::([0-9]{1,5}))?/?", hop.strip()
        )
        if match is None:
            raise ConfigError(str(place), f"{hop.strip()!r} in its ProxyJump cannot be understood")
        user, bracketed, plain, port = match.groups()
        found.append(Place(bracketed or plain, user, int(port) if port else None, place.config))
    return found


def settings(place: Place, values: Values, via: HostSettings | None = None) -> HostSettings:
    """The typed form; raises `ConfigError` for what cannot be a host, a user or a number."""
    host = _one(values, "hostname") or place.host
    user = _one(values, "user") or place.user or getpass.getuser()
    port = _number(place, values, "port", place.port or 22)
    _check(Place(host, user, port))
    tokens = _tokens(place, host, user, port or 22, _one(values, "hostkeyalias"))

    def paths(keyword: str) -> tuple[str, ...]:
        listed = [expand(text, tokens) for text in values.get(keyword, ()) if text.lower() != "none"]
        return tuple(dict.fromkeys(listed))

    def switch(keyword: str, default: bool) -> bool:
        value = (_one(values, keyword) or "").lower()
        return value in ("yes", "true") if value else default

    agent, proxy = _one(values, "identityagent"), _one(values, "proxycommand")
    control = _one(values, "controlpath")
    strict = (_one(values, "stricthostkeychecking") or "ask").lower()
    return HostSettings(
        place=place,
        host=host,
        port=port or 22,
        user=user,
        via=via,
        proxy_command=None
        if via or not proxy or proxy.lower() == "none"
        else expand(proxy, tokens, home=False),
        family=_one(values, "addressfamily") or "any",
        connect_timeout=_number(place, values, "connecttimeout", None),
        alive_interval=_number(place, values, "serveraliveinterval", 0) or 0,
        alive_count=_number(place, values, "serveralivecountmax", 3) or 3,
        identity_files=paths("identityfile"),
        certificate_files=paths("certificatefile"),
        identities_only=switch("identitiesonly", False),
        identity_agent=_agent(agent, tokens),
        methods=tuple((_one(values, "preferredauthentications") or "").split(","))
        if _one(values, "preferredauthentications")
        else (),
        public_key=(_one(values, "pubkeyauthentication") or "yes").lower() not in ("no", "false"),
        password=switch("passwordauthentication", True),
        interactive=switch("kbdinteractiveauthentication", True),
        gssapi=switch("gssapiauthentication", False),
        prompts=_number(place, values, "numberofpasswordprompts", 3) or 3,
        known_hosts=_files(values, "userknownhostsfile", tokens),
        more_known_hosts=_files(values, "globalknownhostsfile", tokens),
        host_key_alias=_one(values, "hostkeyalias"),
        # "no" and "off" take a new key without asking, as accept-new does; a changed one is never taken (DESIGN §3.5).
        strict={"true": "yes", "yes": "yes", "ask": "ask"}.get(strict, "accept-new"),
        hash_known_hosts=switch("hashknownhosts", False),
        compression=switch("compression", False),
        algorithms=_algorithms(values),
        set_env=tuple(
            (name, value) for name, _, value in (text.partition("=") for text in values.get("setenv", ()))
        ),
        send_env=tuple(pattern for text in values.get("sendenv", ()) for pattern in text.split()),
        control_path=None if not control or control.lower() == "none" else control,
        unusual=_unusual(values),
    )


def _one(values: Values, keyword: str) -> str | None:
    found = values.get(keyword)
    return found[0] if found and found[0] else None


def _number(place: Place, values: Values, keyword: str, default: int | None) -> int | None:
    text = _one(values, keyword)
    if text is None or text.lower() == "none":
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigError(str(place), f"{keyword} {text!r} is not a number")
    return int(text)


def _agent(text: str | None, tokens: Mapping[str, str]) -> str | None:
    if text is None or text == "SSH_AUTH_SOCK":
        return None
    if text.lower() == "none":
        return "none"
    return (
        os.environ.get(text[1:], "none")
        if text.startswith("$") and text[1:2] != "{"
        else expand(text, tokens)
    )


def _files(values: Values, keyword: str, tokens: Mapping[str, str]) -> tuple[str, ...]:
    """Files on one line, separated by blanks; one with a blank in its name goes on until the next path begins."""
    found: list[str] = []
    for word in (word for line in values.get(keyword, ()) for word in line.split(" ")):
        if found and not word.startswith(("/", "~", "none")):
            found[-1] += " " + word
        elif word:
            found.append(word)
    return tuple(expand(text, tokens) for text in found if text != "none")


def _algorithms(values: Values) -> tuple[tuple[str, tuple[str, ...]], ...]:
    usual = usual_algorithms()
    return tuple(
        (keyword, tuple(values[keyword][0].split(",")))
        for keyword in _ALGORITHMS
        if values.get(keyword) and values[keyword] != usual.get(keyword)
    )


_ONLY_THE_PROGRAM = {
    "pkcs11provider": ("none",),
    "knownhostscommand": ("none",),
    "securitykeyprovider": ("internal",),
    "revokedhostkeys": ("none",),
    "bindaddress": ("none",),
    "bindinterface": ("none",),
    "hostbasedauthentication": ("no", "false"),
    "proxyusefdpass": ("no", "false"),
    "verifyhostkeydns": ("no", "false"),
}


def _unusual(values: Values) -> tuple[str, ...]:
    """The keywords in use that asyncssh has no counterpart for (asyncssh, Supported OpenSSH client options)."""
    return tuple(
        keyword
        for keyword, harmless in _ONLY_THE_PROGRAM.items()
        if _one(values, keyword) is not None and values[keyword][0].lower() not in harmless
    )


# -- tokens (ssh_config(5), TOKENS) ------------------------------------------------------------------------


def home_directory() -> Path:
    """As ssh sees it, which does not look at HOME."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def _tokens(place: Place, host: str, user: str, port: int, alias: str | None) -> dict[str, str]:
    here = socket.gethostname()
    return {
        "%": "%",
        "d": str(home_directory()),
        "h": host,
        "i": str(os.getuid()),
        "j": "",
        "k": alias or place.host,
        "L": here.partition(".")[0],
        "l": here,
        "n": place.host,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
    }


def expand(text: str, tokens: Mapping[str, str], home: bool = True) -> str:
    """``~/``, ``%x`` and ``${NAME}``; a token that is not known stays as it is."""
    if home and (text == "~" or text.startswith("~/")):
        text = str(home_directory()) + text[1:]
    elif home and text.startswith("~"):
        text = os.path.expanduser(text)

    def value(match: re.Match[str]) -> str:
        token, name = match.groups()
        return tokens.get(token, match[0]) if token else os.environ.get(name, match[0])

    return (
        re.sub(r"%(.)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, text)
        if home
        else re.sub(r"%(.)()", value, text)
    )
