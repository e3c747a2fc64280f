"""Jupyter messages, against jupyter_client's own Session in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from farkernel.launcher import messages
from farkernel.launcher.messages import Composer, Message, MessageError, Signer

KEY = b"a-key-for-tests"
SCHEMES = ["hmac-sha256", "hmac-sha1", "hmac-md5", "hmac-sha512", "hmac-sha3_256"]


def session(scheme: str = "hmac-sha256", key: bytes = KEY) -> Session:
    return Session(key=key, signature_scheme=scheme, session="their-session", username="somebody")


def received(theirs: Session, frames: list[Any]) -> tuple[list[bytes], dict[str, Any]]:
    """As a client of jupyter_client takes a message apart; raises if the signature is wrong."""
    identities, rest = theirs.feed_identities(frames)
    return identities, theirs.deserialize(rest)


def request(theirs: Session, code: str = "1") -> list[bytes]:
    return theirs.serialize(theirs.msg("execute_request", {"code": code}), ident=[b"client", b"second"])


@pytest.fixture
def composer() -> Composer:
    return Composer(Signer(KEY), "our-session")


# -- taking apart and verifying


@pytest.mark.parametrize("scheme", SCHEMES)
def test_their_messages_are_understood(scheme: str) -> None:
    frames: list[Any] = [*request(session(scheme), "print('é')"), b"buffer", memoryview(b"another")]
    message = Message.split(frames)
    Signer(KEY, scheme).verify(message)
    assert message.identities == [b"client", b"second"]
    assert message.msg_type == "execute_request"
    assert message.header["session"] == "their-session"
    assert message.parent == {}
    assert message.metadata == {}
    assert message.content == {"code": "print('é')"}
    assert message.buffers[0] is frames[-2]
    assert message.buffers[1] is frames[-1]
    assert message.frames() == frames


def test_a_changed_part_is_noticed() -> None:
    frames = request(session())
    for index in range(4, 8):
        changed = [*frames]
        changed[index] += b" "
        with pytest.raises(MessageError, match="its signature is wrong"):
            Signer(KEY).verify(Message.split(changed))


def test_another_key_and_no_signature_are_noticed() -> None:
    with pytest.raises(MessageError, match="its signature is wrong"):
        Signer(b"other").verify(Message.split(request(session())))
    with pytest.raises(MessageError, match="it is not signed"):
        Signer(KEY).verify(Message.split(request(session(key=b""))))


def test_an_empty_key_signs_nothing_and_takes_everything() -> None:
    signer = Signer(b"")
    signer.verify(Message.split(request(session())))
    assert signer.with_session(Message.split(request(session())), "s").signature == b""


@pytest.mark.parametrize("scheme", ["sha256", "hmac-nonsense", "hmac-", "", "hmac-shake_128"])
def test_unknown_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(MessageError, match="signature scheme"):
        Signer(KEY, scheme)


def test_a_signer_does_not_show_its_key() -> None:
    assert "key-for-tests" not in repr(Signer(KEY))


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        ([], "no delimiter"),
        ([b"a"] * 10, "no delimiter"),
        ([b"id"] * 17 + [b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"], "no delimiter"),
        ([b"<IDS|MSG>", b"", b"{}", b"{}", b"{}"], "4 parts after the delimiter"),
    ],
)
def test_what_is_no_jupyter_message(frames: list[bytes], problem: str) -> None:
    with pytest.raises(MessageError, match=problem):
        Message.split(frames)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"1" * 5000,
        b'{"msg_id": ' + b"9" * 5000 + b"}",
        b"{}",
        b'{"msg_id": 1, "msg_type": "a", "session": "s"}',
        b'{"msg_id": "1", "msg_type": null, "session": "s"}',
        b'{"msg_id": "1", "msg_type": "a", "session": ["s"]}',
    ],
)
def test_hostile_headers(header: bytes) -> None:
    message = Message.split([b"<IDS|MSG>", b"", header, b"{}", b"{}", b"{}"])
    with pytest.raises(MessageError, match="A message was refused: its header"):
        _ = message.header
    with pytest.raises(MessageError):
        Signer(KEY).with_session(message, "s")
    assert "unreadable" in repr(message)


@given(st.lists(st.one_of(st.binary(max_size=20), st.just(b"<IDS|MSG>"), st.just(b"{}")), max_size=12))
def test_no_frames_break_it_otherwise(frames: list[bytes]) -> None:
    try:
        message = Message.split(frames)
        _ = message.header, message.parent, message.metadata, message.content
    except MessageError:
        return
    assert message.frames() == frames


# -- another session


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_session_changes_nothing_else(scheme: str) -> None:
    message = Message.split([*request(session(scheme)), b"buffer"])
    changed = Signer(KEY, scheme).with_session(message, "our-session")
    assert changed.parts[1:] == message.parts[1:]
    assert all(ours is theirs for ours, theirs in zip(changed.parts[1:], message.parts[1:], strict=True))
    assert changed.buffers[0] is message.buffers[0]
    assert message.header["session"] == "their-session"
    identities, theirs = received(session(scheme), changed.frames())
    assert identities == [b"client", b"second"]
    assert theirs["header"]["session"] == "our-session"
    assert {**theirs["header"], "session": "", "date": ""} == {**message.header, "session": "", "date": ""}


def test_strange_characters_in_the_header_go_through() -> None:
    header = b'{"msg_id": "\\ud800", "msg_type": "a", "session": "s", "username": "\xc3\xa9", "more": [1.5]}'
    message = Message.split([b"<IDS|MSG>", b"", header, b"{}", b"{}", b"{}"])
    changed = Signer(KEY).with_session(message, "new")
    assert json.loads(changed.parts[0]) == {**json.loads(header), "session": "new"}


ODD = st.text(st.sampled_from('ab1-_:,"\\{}[] \n\u00e4\ud800'), max_size=4)


@given(
    st.dictionaries(st.one_of(ODD, st.just("session")), ODD, max_size=4),
    ODD,
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
)
def test_whatever_a_session_is_called_another_takes_its_place(
    more: dict[str, str], name: str, separators: tuple[str, str], ascii_only: bool
) -> None:
    header = {**more, "msg_id": "a", "msg_type": "status", "session": name}
    text = json.dumps(header, separators=separators, ensure_ascii=ascii_only)
    message = Message([], b"", [text.encode("utf-8", "surrogatepass"), b"{}", b"{}", b"{}"])
    changed = Signer(KEY).with_session(message, "0f" * 16)
    assert json.loads(changed.parts[0]) == {**header, "session": "0f" * 16}
    Signer(KEY).verify(changed)


def test_a_header_keeps_its_own_way_of_being_written() -> None:
    text = b'{"session": "s-1", "msg_id": "s-1_2",  "msg_type": "status", "date": null}'
    changed = Signer(KEY).with_session(Message([], b"", [text, b"{}", b"{}", b"{}"]), "ours")
    assert changed.parts[0] == text.replace(b'"s-1"', b'"ours"')


def test_resign_signs_the_same_parts_with_another_key() -> None:
    message = Message.split(request(session(key=b"kernel's key")))
    signer = Signer(KEY)
    again = signer.resign(message)
    signer.verify(again)
    assert again.parts == message.parts


def test_large_contents_are_signed_alike() -> None:
    received(
        session(), Signer(KEY).with_session(Message.split(request(session(), "x" * 50_000)), "n").frames()
    )


# -- messages of our own


def test_each_message_is_what_jupyter_client_expects(composer: Composer) -> None:
    asked = Message.split(request(session()))
    made = [
        (composer.status("busy", asked), "status", {"execution_state": "busy"}),
        (composer.stream("wait\n", asked), "stream", {"name": "stdout", "text": "wait\n"}),
        (composer.clear_output(asked, wait=True), "clear_output", {"wait": True}),
        (composer.execute_input(asked, "1", 3), "execute_input", {"code": "1", "execution_count": 3}),
        (composer.interrupt_reply(asked), "interrupt_reply", {"status": "ok"}),
        (composer.shutdown_reply(asked, True), "shutdown_reply", {"status": "ok", "restart": True}),
        (
            composer.kernel_info_reply(asked, {"banner": "b"}),
            "kernel_info_reply",
            {"status": "ok", "banner": "b"},
        ),
        (
            composer.input_request(asked, "Password: ", True),
            "input_request",
            {"prompt": "Password: ", "password": True},
        ),
        (composer.execute_reply_aborted(asked), "execute_reply", {"status": "aborted"}),
        (composer.reply(asked, {"status": "ok"}), "execute_reply", {"status": "ok"}),
        (
            composer.error(asked, "Gone", "why", ["line"]),
            "error",
            {"ename": "Gone", "evalue": "why", "traceback": ["line"]},
        ),
        (
            composer.error_reply(asked, "Gone", "why"),
            "execute_reply",
            {"status": "error", "ename": "Gone", "evalue": "why", "traceback": []},
        ),
        (
            composer.display_data(asked, {"text/plain": "x"}, "d1", update=True),
            "update_display_data",
            {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "d1"}},
        ),
    ]
    theirs = session()
    for message, msg_type, content in made:
        _, seen = received(theirs, message.frames())
        assert (seen["msg_type"], seen["content"]) == (msg_type, content)
        assert seen["parent_header"]["msg_id"] == asked.msg_id
        assert seen["header"]["session"] == "our-session"
        assert seen["header"]["date"].tzinfo is not None  # parsed as a date


def test_execute_reply_error_has_all_fields(composer: Composer) -> None:
    reply = composer.execute_reply_error(Message.split(request(session())), "Gone", "why", ["t"], 7)
    assert reply.identities == [b"client", b"second"]
    assert reply.content == {
        "status": "error",
        "execution_count": 7,
        "user_expressions": {},
        "payload": [],
        "ename": "Gone",
        "evalue": "why",
        "traceback": ["t"],
    }


def test_a_welcome_goes_under_its_subscription_and_without_a_parent(composer: Composer) -> None:
    welcome = composer.iopub_welcome(b"kernel.1")
    assert welcome.identities == [b"kernel.1"]
    _, seen = received(session(), welcome.frames())
    assert (seen["content"], seen["parent_header"]) == ({"subscription": "kernel.1"}, {})
    assert composer.iopub_welcome(b"").frames()[0] == messages.DELIMITER


def test_no_message_is_like_another(composer: Composer) -> None:
    theirs = session()
    for _ in range(50):
        received(theirs, composer.status("idle").frames())  # raises for a signature seen before
    again = Composer(Signer(KEY), "our-session")
    assert again.status("idle").msg_id != composer.status("idle").msg_id


def test_topics_and_routing(composer: Composer) -> None:
    asked = Message.split(request(session()))
    assert composer.stream("x", asked, "stderr").identities == [b"stream.stderr"]
    assert composer.status("idle").identities == [b"status"]
    assert composer.input_request(asked, "> ").identities == [b"client", b"second"]
    assert composer.request("interrupt_request", {}, [b"kernel"]).identities == [b"kernel"]
