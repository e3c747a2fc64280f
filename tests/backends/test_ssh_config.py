"""ssh_config as `ssh -G` tells it: what is read, what becomes of strange names, which values reach a command line."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.backends.ssh import first_line
from farkernel.backends.ssh_config import (
    ConfigError,
    HostSettings,
    Place,
    expand,
    home_directory,
    jumps,
    parse,
    place_arguments,
    read_settings,
    settings,
)
from farkernel.backends.ssh_config_fallback import look_up_without_ssh
from tests.sites.engine import wait_until

HOSTILE = [
    "-oProxyCommand=touch canary",
    "-Fconfig",
    "--",
    "$(touch canary)",
    "`touch canary`",
    "a b",
    "a\nHostName b",
    "a;touch canary",
    "a'b",
    'a"b',
    "a|b",
    "",
    "a\x1b[31m",
]


def config(home: Path, *lines: str) -> str:
    path = home / "ssh_config"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def read(
    home: Path, *lines: str, host: str = "host", user: str | None = None, port: int | None = None
) -> HostSettings:
    from farkernel.backends import ssh_config

    ssh_config._read.cache_clear()
    return read_settings(Place(host, user, port, config(home, *lines)))


def test_an_alias_is_what_ssh_config_says(home: Path) -> None:
    found = read(
        home,
        "Host host",
        "HostName Real.Example.org",
        "User me",
        "Port 2222",
        "IdentityFile ~/.ssh/%h_%r",
        "CertificateFile /c/%n.pub",
        "IdentitiesOnly yes",
        "UserKnownHostsFile ~/.ssh/kh /k/other",
        "StrictHostKeyChecking accept-new",
        "HashKnownHosts yes",
        "ServerAliveInterval 7",
        "ConnectTimeout 9",
        "PreferredAuthentications publickey,password",
        "Compression yes",
        "SetEnv A=b C=d",
        "Ciphers aes256-ctr",
    )
    assert (found.host, found.user, found.port) == ("real.example.org", "me", 2222)
    assert found.known_as == "[real.example.org]:2222"
    assert found.identity_files == (f"{home_directory()}/.ssh/real.example.org_me",)
    assert found.certificate_files == ("/c/host.pub",)
    assert found.identities_only
    assert found.known_hosts == (f"{home_directory()}/.ssh/kh", "/k/other")
    assert (found.strict, found.hash_known_hosts) == ("accept-new", True)
    assert (found.alive_interval, found.connect_timeout) == (7, 9)
    assert found.methods == ("publickey", "password")
    assert found.compression
    assert found.set_env == (("A", "b"), ("C", "d"))
    assert found.chosen("ciphers") == ("aes256-ctr",)
    assert found.chosen("macs") == ()
    assert found.unusual == ()


def test_the_address_overrules_ssh_config(home: Path) -> None:
    found = read(home, "User me", "Port 2222", user="you", port=23)
    assert str(found) == "you@host:23"


def test_two_names_of_one_login_are_equal(home: Path) -> None:
    lines = ["Host one two", "HostName real", "User me"]
    assert read(home, *lines, host="one") == read(home, *lines, host="two")
    assert read(home, *lines, host="one") != read(home, *lines, host="three")


def test_jumps_are_read_each_for_itself(home: Path) -> None:
    found = read(
        home,
        "Host host",
        "ProxyJump me@first:2201,second",
        "Host first",
        "HostName 10.0.0.1",
        "ProxyJump zeroth",
        "Host second",
        "Port 2202",
    )
    assert found.via is not None
    assert (found.via.host, found.via.port) == ("second", 2202)
    assert found.via.via is not None
    assert str(found.via.via) == "me@10.0.0.1:2201"
    assert found.via.via.via is not None
    assert found.via.via.via.host == "zeroth"


def test_a_circle_of_jumps_is_an_error(home: Path) -> None:
    with pytest.raises(ConfigError, match="circle"):
        read(home, "Host host", "ProxyJump other", "Host other", "ProxyJump host")


@pytest.mark.parametrize(
    ("text", "hops"),
    [
        ("none", []),
        ("a", [("a", None, None)]),
        ("me@a:22,[fe80::1]:23", [("a", "me", 22), ("fe80::1", None, 23)]),
        ("ssh://me@a:22/", [("a", "me", 22)]),
    ],
)
def test_forms_of_proxy_jump(text: str, hops: list[tuple[str, str | None, int | None]]) -> None:
    found = jumps(Place("host", config="/c"), {"proxyjump": [text]})
    assert found == [Place(host, user, port, "/c") for host, user, port in hops]


def read_jumps(text: str) -> list[HostSettings]:
    return [read_settings(hop) for hop in jumps(Place("host"), {"proxyjump": [text]})]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_never_become_arguments(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    for place in (Place(name), Place("host", name)):
        with pytest.raises(ConfigError) as caught:
            read_settings(place)
        assert caught.value.needs_user
    for values in ({"hostname": [name or "-"]}, {"user": [name or "-"]}, {"port": [name or "-"]}):
        with pytest.raises(ConfigError):
            settings(Place("host"), values)
    if "," not in name and name:
        with pytest.raises(ConfigError):
            read_jumps(name)
    assert not (home / "canary").exists()


def test_arguments_name_the_place_behind_a_double_dash() -> None:
    place = Place("host", "me", 22, "/c d")
    assert place_arguments(place) == ["-F", "/c d", "-l", "me", "-p", "22", "--", "host"]


def test_a_broken_ssh_config_is_told_in_its_own_words(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?i)bad configuration option|terminating"):
        read(home, "NoSuchKeyword yes")


def test_no_ssh_program_is_needed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["Host host", "HostName real", "User me", "Port 2222", "IdentityFile ~/.ssh/%h", "ProxyJump a:23"]
    with_program = read(home, *lines, "UserKnownHostsFile /k1 /k2")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    without = read(home, *lines, "UserKnownHostsFile /k1 /k2")
    for name in ("host", "user", "port", "known_hosts", "strict", "proxy_command"):
        assert getattr(with_program, name) == getattr(without, name), name
    assert without.via is not None
    assert (without.via.host, without.via.port) == ("a", 23)
    plain = look_up_without_ssh(Place("other", config=config(home, "")))
    assert any(path.endswith("/.ssh/id_ed25519") for path in plain["identityfile"])


def test_tokens_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/w")
    tokens = {"%": "%", "h": "host", "r": "me"}
    assert expand("~/%h/%%/%r/%z", tokens) == f"{home_directory()}/host/%/me/%z"
    assert expand("${WHERE}/${NOWHERE_AT_ALL}", tokens) == "/w/${NOWHERE_AT_ALL}"
    assert expand("nc %h $X ${WHERE}", tokens, home=False) == "nc host $X ${WHERE}"


@given(st.text(max_size=300))
def test_any_text_can_be_parsed(text: str) -> None:
    for keyword, found in parse(text).items():
        assert keyword == keyword.lower()
        assert found


WORDS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_a_first_line_is_one_line(words: list[str]) -> None:
    line = first_line(["printf", *words])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


def test_words_survive_a_first_line(home: Path) -> None:
    import subprocess

    from farkernel.backends.ssh import ANY

    words = [*HOSTILE, "x\n\ny\n", "$n", "\\n", "%s"]
    for shell in ("/bin/sh", "/bin/bash", "/usr/bin/fish", "/bin/tcsh", "/usr/bin/zsh"):
        done = subprocess.run(
            [shell, "-c", ANY],
            input=first_line(["printf", "<%s>", *words]) + b"the rest",
            capture_output=True,
            cwd=home,
            check=True,
            timeout=20,
        )
        assert done.stdout.decode() == "".join(f"<{word}>" for word in words), shell
    assert not os.path.exists(home / "canary")


def test_a_match_exec_without_an_end_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farkernel.backends.ssh_config._DEADLINE", 1.0)
    never = home / "never"
    os.mkfifo(never)
    with pytest.raises(ConfigError, match="ssh -G did not answer within 1 s"):
        read(home, f'Match exec "cat {never}"')

    def is_unread() -> bool:
        try:
            os.close(os.open(never, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            return error.errno == errno.ENXIO  # nobody reads it any more: fifo(7)
        return False

    wait_until(is_unread, "what it started to be ended, too")
