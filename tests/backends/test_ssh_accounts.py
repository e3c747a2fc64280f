"""Logins as sites have them: passwords, a second factor by PAM, login shells of all kinds, accounts that may not log in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from farkernel.backends.contract import Question, RouteError
from farkernel.backends.ssh import ANY, first_line
from farkernel.backends.ssh_errors import ClosedAfterAsking, LoginRefused, NoAccess

from ..sites.accounts import Account, account, own, pam_service
from ..sites.one_time_codes import code, pam_lines
from ..sites.ssh import Sshd
from .ssh_near_end import CLIENTS, Heard, Near, Person, fresh_settings, play

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

SHELLS = ["/bin/bash", "/bin/dash", "/bin/tcsh", "/usr/bin/fish", "/usr/bin/zsh"]


@pytest.fixture(scope="module")
def someone(session_home: Path) -> Iterator[Account]:
    """One for all tests that leave its home as it is: making one takes longer than a login."""
    with account(session_home.parent) as made:
        yield made


def server(home: Path, user: Account, **options: str) -> Sshd:
    return Sshd(home.parent / "sshd", options, user.name)


@pytest.fixture
def second_factor(home: Path, someone: Account) -> Iterator[Sshd]:
    """A password and a code, as PAM asks for them: two rounds of keyboard-interactive."""
    asking = pam_lines(home.parent / "oath-users", someone.name)
    allowing = "account required pam_permit.so\nsession required pam_permit.so\n"
    stack = f"auth requisite pam_unix.so\n{asking}{allowing}"
    with pam_service(stack) as service:
        host = server(
            home,
            someone,
            UsePAM="yes",
            KbdInteractiveAuthentication="yes",
            AuthenticationMethods="keyboard-interactive",
        )
        host.pam_service = service
        with host:
            yield host


@pytest.mark.parametrize("client", CLIENTS)
def test_a_password_is_asked_for_once(client: str, home: Path, someone: Account) -> None:
    with server(home, someone, PasswordAuthentication="yes", AuthenticationMethods="password") as host:
        person = Person({"password": someone.password})

        async def act(near: Near) -> None:
            for _ in range(3):
                assert (await near.run(host.place(), "id -un")).data.decode() == f"{someone.name}\n"
            assert len(person.questions) == 1
            assert person.questions[0].hidden
            assert not person.questions[0].terminal

        play(act, client, person)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wrong_password_is_not_tried_for_ever(client: str, home: Path, someone: Account) -> None:
    with server(home, someone, PasswordAuthentication="yes", AuthenticationMethods="password") as host:
        person = Person({"password": "wrong"})

        async def act(near: Near) -> None:
            with pytest.raises(LoginRefused, match="a password or code") as caught:
                await near.run(host.place(), "true")
            assert caught.value.needs_user

        play(act, client, person)
        assert 1 <= len(person.questions) <= 3
        assert host.log.read_text().count("Failed password") == len(person.questions)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_second_factor_is_asked_for_in_its_own_words(
    client: str, second_factor: Sshd, someone: Account
) -> None:
    person = Person({"Password": someone.password, "One-time": code()})

    async def act(near: Near) -> None:
        for _ in range(3):
            assert (await near.run(second_factor.place(), "id -un")).data.decode() == f"{someone.name}\n"
        assert ["One-time" in question.text for question in person.questions] == [False, True]
        assert all(f"({someone.name}@127.0.0.1" in question.text for question in person.questions)
        assert second_factor.logins() == 1

    play(act, client, person)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_second_factor_behind_a_key(client: str, second_factor: Sshd, someone: Account) -> None:
    second_factor.options["AuthenticationMethods"] = "publickey,keyboard-interactive"
    second_factor.restart()
    person = Person({"Password": someone.password, "One-time": code()})

    async def act(near: Near) -> None:
        assert (await near.run(second_factor.place(), "id -un")).data.decode() == f"{someone.name}\n"
        assert len(person.questions) == 2

    play(act, client, person)


@pytest.mark.parametrize("client", CLIENTS)
def test_with_nobody_to_ask_no_password_is_guessed(client: str, second_factor: Sshd) -> None:
    person = Person()

    async def act(near: Near) -> None:
        with pytest.raises(RouteError) as caught:
            await near.run(second_factor.place(), "true")
        assert caught.value.needs_user
        assert "farkernel login" in caught.value.advice

    play(act, client, person)
    assert len(person.questions) == 1
    assert "Failed" not in second_factor.log.read_text().replace("Failed none", "")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_gives_way_to_sh(client: str, shell: str, home: Path) -> None:
    hostile = [
        "printf",
        "<%s>",
        "$(touch /tmp/canary)",
        "`id`",
        "'\"",
        "a\nb",
        "!x",
        "%n",
        "~",
        "*",
        "-oProxyCommand=x",
    ]
    with account(home.parent, shell) as user, server(home, user) as host:

        async def act(near: Near) -> None:
            heard = await near.run(host.place(), "echo $0")
            assert bytes(heard.data).strip() in (b"/bin/sh", b"sh")
            heard = Heard()
            stream = await near.open(host.place(), heard, ANY)
            stream.write([first_line(hostile)])
            await heard.over.wait()
            assert heard.data.decode() == "".join(f"<{word}>" for word in hostile[2:])

        play(act, client)
        assert not Path("/tmp/canary").exists()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_noisy_shell_is_heard_and_harmless(client: str, home: Path) -> None:
    with account(home.parent) as user, server(home, user) as host:
        (user.home / ".bashrc").write_text("echo Welcome; printf '\\033]0;owned\\007'; echo oh dear >&2\n")
        own(user.home, user)

        async def act(near: Near) -> None:
            heard = await near.run(host.place(), "echo in")
            assert heard.data.endswith(b"in\n")
            assert heard.data.startswith(b"Welcome\n")

        play(act, client)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_account_without_a_shell_says_so(client: str, home: Path) -> None:
    with account(home.parent, "/usr/sbin/nologin") as user, server(home, user) as host:

        async def act(near: Near) -> None:
            heard = await near.run(host.place(), "echo in")
            assert b"This account is currently not available." in bytes(heard.data)
            assert not bytes(heard.data).endswith(b"in\n")

        play(act, client)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_host_in_maintenance_says_why(client: str, home: Path, someone: Account) -> None:
    notice = home.parent / "nologin"
    notice.write_text("Maintenance until noon.\x1b[31m\n")
    stack = f"auth required pam_unix.so\naccount required pam_nologin.so file={notice}\nsession required pam_permit.so\n"
    with pam_service(stack) as service:
        host = server(home, someone, UsePAM="yes")
        host.pam_service = service
        with host:

            async def act(near: Near) -> None:
                with pytest.raises((NoAccess, LoginRefused), match="Maintenance until noon") as caught:
                    await near.run(host.place(), "true")
                assert "\x1b" not in str(caught.value)

            play(act, client)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_banner_is_no_hindrance(client: str, home: Path, someone: Account) -> None:
    banner = home.parent / "banner"
    banner.write_text("Authorized use only\n" * 100)
    with server(home, someone, Banner=str(banner)) as host:

        async def act(near: Near) -> None:
            assert (await near.run(host.place(), "echo in")).data == b"in\n"

        play(act, client)


class Absent(Person):
    """Somebody who was here a moment ago: the question is put, and nobody answers."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = False

    async def ask(self, question: Question) -> str:
        self.questions.append(question)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return ""


@pytest.mark.parametrize("client", CLIENTS)
def test_a_question_goes_away_when_the_host_waits_no_longer(
    client: str, home: Path, someone: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farkernel.backends.ssh_questions.PATIENCE", 2.0)
    options = {"PasswordAuthentication": "yes", "AuthenticationMethods": "password", "LoginGraceTime": "2"}
    with server(home, someone, **options) as host:
        person = Absent()

        async def act(near: Near) -> None:
            with pytest.raises(RouteError) as caught:
                await near.run(host.place(), "true")
            assert not caught.value.needs_user
            await asyncio.sleep(0.1)
            assert person.cancelled

        play(act, client, person)


@pytest.mark.parametrize("client", CLIENTS)
def test_who_comes_while_somebody_is_asked_gets_the_same_connection(
    client: str, home: Path, someone: Account
) -> None:
    options = {"PasswordAuthentication": "yes", "AuthenticationMethods": "password"}
    with server(home, someone, **options) as host:
        person = Person({"password": someone.password})

        async def act(near: Near) -> None:
            heard = await asyncio.gather(*(near.run(host.place(), "echo in") for _ in range(8)))
            assert {bytes(each.data) for each in heard} == {b"in\n"}
            assert len(person.questions) == 1
            assert host.logins() == 1

        play(act, client, person)


@pytest.mark.parametrize("client", CLIENTS)
def test_who_can_answer_is_asked_although_somebody_who_cannot_came_first(
    client: str, home: Path, someone: Account
) -> None:
    options = {"PasswordAuthentication": "yes", "AuthenticationMethods": "password"}
    with server(home, someone, **options) as host:

        async def act(near: Near) -> None:
            settings = fresh_settings(host.place())
            first = asyncio.create_task(near.open(settings, Heard()))  # nobody: as `farkernel list`
            await asyncio.sleep(0)
            near.person = Person({"password": someone.password})
            second = asyncio.create_task(near.open(settings, Heard()))
            stream = await second
            stream.close()
            await asyncio.wait([first])
            assert len(near.person.questions) == 1

        play(act, client)


class Thoughtful(Person):
    """Answers when the host's patience (LoginGraceTime, 3 s) is over."""

    async def ask(self, question: Question) -> str:
        self.questions.append(question)
        await asyncio.sleep(6)
        return "at last"


@pytest.mark.parametrize("client", ["asyncssh", "program"])
def test_an_answer_that_comes_too_late(client: str, home: Path, someone: Account) -> None:
    banner = home.parent / "banner"
    banner.write_text("*** Welcome ***\n")
    options = {
        "PasswordAuthentication": "yes",
        "AuthenticationMethods": "password",
        "LoginGraceTime": "3",
        "Banner": str(banner),
    }
    with server(home, someone, **options) as host:
        person = Thoughtful()

        async def act(near: Near) -> None:
            with pytest.raises(ClosedAfterAsking, match=r"Welcome.*LoginGraceTime") as caught:
                await near.run(host.place(), "true")
            assert not caught.value.needs_user
            assert len(person.questions) == 1

        play(act, client, person)


def test_the_program_s_own_words_are_not_taken_for_the_host_s(home: Path, someone: Account) -> None:
    with server(home, someone, PasswordAuthentication="yes", AuthenticationMethods="password") as host:

        async def act(near: Near) -> None:
            with pytest.raises(LoginRefused) as caught:
                await near.run(host.place(), "true")
            assert "It says" not in caught.value.what

        play(act, "program", Person({"password": "wrong"}))
