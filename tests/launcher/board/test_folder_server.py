"""Requests of a mounted folder in a board's output: exact bytes, and any splitting of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board.folder_server import FolderServer, Request, RequestReader, answer, parse
from farkernel.launcher.board.shared_folder import SharedFolder


def test_requests_are_taken_out_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    sent: list[bytes] = []
    server = FolderServer(SharedFolder(tmp_path), sent.append)
    output = server.feed(b"before\x1efs:(1, 'open', '/a.txt', 'r')\r\nafter \x1e \x1efk:clear\r\n")
    assert output == b"beforeafter \x1e \x1efk:clear\r\n"
    assert sent == [b"\n1 v 5 (1,0)\n"]
    assert server.feed(b"\x1efs:(2, 'read', 1, 1, 100)\r\n\x1efs:(3, 'write', 1, 0, 'eA==')\r\n") == b""
    assert (
        server.feed(b"\x1efs:(4, 'stat', '/no')\r\n\x1efs:(5, 'nonsense')\r\n\x1efs:[]\r\n")
        == b"\x1efs:[]\r\n"
    )
    assert sent[1:] == [b"\n2 d 8 ZWxsbw==\n", b"\n4 e 1 2\n", b"\n5 e 2 22\n"]


def test_an_answer_has_no_interrupt_in_it() -> None:
    assert answer(7, ("é\x03\n", None)) == b"\n7 v 19 ('\\xe9\\x03\\n',None)\n"
    assert answer(8, b"\x03\x04") == b"\n8 d 4 AwQ=\n"
    assert answer(9, OSError("without a number")) == b"\n9 e 1 5\n"


@pytest.mark.parametrize(
    "line", [b"", b"1", b"()", b"('a',1)", b"(True,'stat')", b"(1,2)", b"(1,'a'", b"\xff", b"(1," * 500]
)
def test_what_is_no_request(line: bytes) -> None:
    assert parse(line) is None


PIECES = st.lists(
    st.sampled_from(
        [b"text ", b"\x1e", b"\x1ef", b"\x1efs", b"\x1efk:= 'x'\r\n", b"\r\n", b"\x1efs:no request\r\n"]
    )
    | st.integers(1, 9999).map(lambda number: b"\x1efs:(%d, 'statvfs')\r\n" % number)
)


@given(PIECES, st.lists(st.integers(1, 40)))
def test_however_it_is_split(pieces: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(pieces) + b"\n"
    at_once, split = RequestReader().feed(whole), []
    reader, place = RequestReader(), 0
    for size in [*cuts, len(whole)]:
        split += reader.feed(whole[place : place + size]) if whole[place : place + size] else []
        place += size

    def joined(found: list[bytes | Request]) -> list[bytes | Request]:
        result: list[bytes | Request] = []
        for each in found:
            if isinstance(each, bytes) and result and isinstance(result[-1], bytes):
                result[-1] += each
            elif each != b"":
                result.append(each)
        return result

    assert joined(at_once) == joined(split)
    requests = sum(isinstance(each, Request) for each in at_once)
    assert requests <= whole.count(b"'statvfs'")


def test_what_never_ends_is_no_request() -> None:
    reader = RequestReader()
    data = b"\x1efs:" + b"x" * 9000
    assert b"".join(each for each in reader.feed(data) if isinstance(each, bytes)) == data
