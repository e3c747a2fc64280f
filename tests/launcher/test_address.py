from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.address import SCHEMES, Address, AddressError, Shape, check_target_name, parse_address

GOOD = {
    "local:": Address("local:", "local"),
    "ssh://host": Address("ssh://host", "ssh", host="host"),
    "ssh://me@host.example:2222": Address(
        "ssh://me@host.example:2222", "ssh", user="me", host="host.example", port=2222
    ),
    "ssh://me@LAB.EDU@host": Address("ssh://me@LAB.EDU@host", "ssh", user="me@LAB.EDU", host="host"),
    "ssh://[::1]:22": Address("ssh://[::1]:22", "ssh", host="::1", port=22),
    "slurm://login.hpc/gpu": Address("slurm://login.hpc/gpu", "slurm", host="login.hpc", partition="gpu"),
    "slurm:///gpu,long": Address("slurm:///gpu,long", "slurm", partition="gpu,long"),
    "slurm://login": Address("slurm://login", "slurm", host="login"),
    "pbs://me@login:22/workq": Address(
        "pbs://me@login:22/workq", "pbs", user="me", host="login", port=22, partition="workq"
    ),
    "sge:///all.q@node1": Address("sge:///all.q@node1", "sge", partition="all.q@node1"),
    "pool:pi-1,pi-2": Address("pool:pi-1,pi-2", "pool", members=("pi-1", "pi-2")),
    "serial:///dev/ttyUSB0": Address("serial:///dev/ttyUSB0", "serial", path="/dev/ttyUSB0"),
    "serial://me@pi/dev/serial/by-id/usb-1": Address(
        "serial://me@pi/dev/serial/by-id/usb-1",
        "serial",
        user="me",
        host="pi",
        path="/dev/serial/by-id/usb-1",
    ),
    "webrepl://board": Address("webrepl://board", "webrepl", host="board"),
}


@pytest.mark.parametrize("text", GOOD)
def test_takes_apart_every_kind_of_address(text: str) -> None:
    address = parse_address(text)
    assert address == GOOD[text]
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local:x", "nothing may follow the colon in the address 'local:x'. Write local:"),
        ("local", "the colon is missing in the address 'local'. Write local:"),
        (
            "shh://host",
            "the address 'shh://host' has an unknown scheme 'shh'. Write ssh://host or ssh://user@host:port",
        ),
        ("ssh:host", "'//' is missing after the colon in the address 'ssh:host'. Write ssh://host or "),
        ("ssh://", "the address 'ssh://' names no host. Write ssh://host or "),
        ("ssh://host/x", "nothing may follow the host in 'ssh://host/x'. Write ssh://host or "),
        ("ssh://-oProxyCommand=x", "'-oProxyCommand=x' cannot be the name of a host, in the address "),
        ("ssh://-l@host", "'-l' cannot be the name of a user, in the address "),
        (
            "ssh://me:secret@host",
            "the address of 'host' holds a password or a second colon. Never write passwords",
        ),
        ("ssh://host:0", "'0' is not a port, in the address 'ssh://host:0'. Write a number from 1 to 65535"),
        ("ssh://host:", "'' is not a port, in the address "),
        ("ssh://a b", "'a b' cannot be the name of a host, in the address "),
        (
            "slurm://login/-p",
            "'-p' cannot be a partition or queue, in the address 'slurm://login/-p'. Write slurm:",
        ),
        ("slurm://login/a/b", "'a/b' cannot be a partition or queue, in the address "),
        ("pool:", "'' cannot be the name of a target, in the address 'pool:'. Write pool:NAME,NAME with"),
        ("pool:a,a", "'a' stands twice in the address 'pool:a,a'. Name each target once"),
        (
            "serial://host",
            "'' is not the path of a device, in the address 'serial://host'. Write serial:///dev/",
        ),
        ("serial:///dev/../etc/passwd", "'/dev/../etc/passwd' is not the path of a device, in the address "),
        (
            "login.example.org",
            "the address 'login.example.org' does not begin with a known scheme. Known are local, ",
        ),
    ],
)
def test_says_what_is_wrong_and_what_to_write(text: str, message: str) -> None:
    with pytest.raises(AddressError) as raised:
        parse_address(text)
    assert str(raised.value).startswith(message)


def test_never_shows_a_password() -> None:
    with pytest.raises(AddressError) as raised:
        parse_address("ssh://me:hunter2@host")
    assert "hunter2" not in str(raised.value)


def test_takes_the_schemes_of_outside_backends() -> None:
    address = parse_address("oar://login/besteffort", {**SCHEMES, "oar": Shape.QUEUE})
    assert (address.scheme, address.host, address.partition) == ("oar", "login", "besteffort")


@given(
    st.sampled_from(["", *(f"{scheme}:" for scheme in SCHEMES), "ssh://", "slurm://", "serial://"]), st.text()
)
def test_any_text_is_an_address_or_an_address_error(start: str, rest: str) -> None:
    try:
        address = parse_address(start + rest)
    except AddressError:
        return
    parts = [address.user, address.host, address.partition, address.path, *address.members]
    for part in parts:
        assert part is None or (part and not part.startswith("-"))
        assert part is None or not any(letter.isspace() or letter in "'\"`;|&<>*?" for letter in part)


@pytest.mark.parametrize("name", ["gpu", "Gpu-2.old_one", "4", "a" * 64])
def test_names_of_targets(name: str) -> None:
    assert check_target_name(name) == name


@pytest.mark.parametrize("name", ["", "-gpu", ".gpu", "a/b", "a b", "gpu\n", "é", "a" * 65])
def test_names_that_no_target_can_have(name: str) -> None:
    with pytest.raises(AddressError, match="cannot be the name of a target"):
        check_target_name(name)
