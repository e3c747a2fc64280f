"""WebREPL: its websocket by the bytes, and a board behind one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.address import parse_address
from farkernel.launcher.board.contract import BoardState
from farkernel.launcher.board.errors import BoardGone, BoardUnreachable, Unsupported
from farkernel.launcher.board.files import BoardFiles
from farkernel.launcher.board.password import password_from
from farkernel.launcher.board.reach import board_at, transport_to
from farkernel.launcher.board.session import Board
from farkernel.launcher.board.webrepl import WebRepl, WrongPassword
from farkernel.launcher.board.websocket import Frame, Opcode, Websocket, WebsocketError, encode

from ...sites.boards import VirtualBoard
from ...sites.webrepl import served
from .test_session import until

# The example of RFC 6455 §1.3.
KEY = b"the sample nonce"
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def opened() -> Websocket:
    socket = Websocket("board", KEY)
    assert socket.receive(ANSWER) == []
    assert socket.is_open
    return socket


def test_the_opening_handshake() -> None:
    assert Websocket("192.168.4.1", KEY).request == (
        b"GET / HTTP/1.1\r\nHost: 192.168.4.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


def test_frames_of_the_specification() -> None:
    assert encode(Opcode.TEXT, b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert opened().receive(bytes.fromhex("810548656c6c6f")) == [Frame(Opcode.TEXT, b"Hello")]
    assert opened().receive(bytes.fromhex("890548656c6c6f")) == [Frame(Opcode.PING, b"Hello")]
    assert opened().receive(bytes.fromhex("827e0100") + bytes(256)) == [Frame(Opcode.BINARY, bytes(256))]
    assert encode(Opcode.TEXT, bytes(300), bytes(4))[:4] == bytes.fromhex("81fe012c")
    assert encode(Opcode.TEXT, bytes(70000), bytes(4))[:10] == bytes.fromhex("81ff0000000000011170")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        ANSWER.replace(b"s3p", b"abc"),
        b"HTTP/1.1 101 \r\nX: " + b"y" * 9000,
    ],
)
def test_what_is_no_websocket(answer: bytes) -> None:
    with pytest.raises(WebsocketError):
        Websocket("board", KEY).receive(answer)


@pytest.mark.parametrize("frame", ["8180", "c100", "83", "817f0000000100000000"])
def test_frames_that_are_wrong(frame: str) -> None:
    with pytest.raises(WebsocketError):
        opened().receive(bytes.fromhex(frame) + bytes(8))


@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.integers(1, 30), max_size=60))
def test_any_split(payloads: list[bytes], sizes: list[int]) -> None:
    data = ANSWER
    for payload in payloads:
        length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
        data += b"\x81" + length + payload
    socket = Websocket("board", KEY)
    frames: list[Frame] = []
    place = 0
    for size in [*sizes, len(data)]:
        frames += socket.receive(data[place : place + size])
        place += size
    assert [frame.payload for frame in frames] == payloads


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masks(payload: bytes, mask: bytes) -> None:
    frame = encode(Opcode.TEXT, payload, mask)
    start = len(frame) - len(payload)
    assert bytes(byte ^ mask[place % 4] for place, byte in enumerate(frame[start:])) == payload


# -- a board behind one ----------------------------------------------------------------------------


@pytest.mark.servers
def test_a_board(site: VirtualBoard) -> None:
    async def run() -> None:
        async with served(site, "secret") as web:
            board = board_at(parse_address(f"webrepl://127.0.0.1:{web.port}"), password="secret")
            info = await board.connect()
            assert info.implementation == "micropython"
            output = bytearray()
            code = "n = 0\n" + "n += 1  # and so that it is longer\n" * 30 + "print(n, 'ünïcode')\n"
            assert await board.execute(code, output.extend) == b""
            assert output.decode() == "30 ünïcode\r\n"
            task = asyncio.create_task(board.execute("while True: pass", output.extend))
            await asyncio.sleep(0.7)
            await board.interrupt()
            assert (await task).endswith(b"KeyboardInterrupt: \r\n")
            files = BoardFiles(board)
            await files.write("x", bytes(range(256)))
            assert await files.read("x") == bytes(range(256))
            with pytest.raises(Unsupported):
                await board.transport.signals(dtr=True, rts=None)
            assert repr(board.transport) == f"<WebRepl at 127.0.0.1:{web.port}, open>"
            await board.close()
            assert not board.transport.is_open

    asyncio.run(run())


@pytest.mark.servers
@pytest.mark.parametrize(
    ("password", "words"), [("wrong", "does not take this password"), ("", "wants a password")]
)
def test_the_wrong_password(old: VirtualBoard, password: str, words: str) -> None:
    async def run() -> None:
        async with served(old, "secret") as web:
            board = Board(WebRepl("127.0.0.1", web.port, password))
            with pytest.raises(WrongPassword, match=words) as caught:
                await board.connect()
            assert "password_command" in caught.value.advice
            assert password == "" or password not in str(caught.value)

    asyncio.run(run())


@pytest.mark.servers
def test_the_network_goes_and_comes(old: VirtualBoard) -> None:
    async def run() -> None:
        async with served(old, "secret") as web:
            states: list[BoardState] = []
            board = Board(WebRepl("127.0.0.1", web.port, "secret"), lambda state, _: states.append(state))
            await board.connect()
            for writer in list(web.writers):
                writer.transport.abort()
            await until(lambda: BoardState.LOST in states and board.state is BoardState.READY)
            assert await board.evaluate("1") == 1
            await board.close()

    asyncio.run(run())


def test_nobody_there() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BoardGone, match="no board at the WebREPL at 127"):
            await Board(WebRepl("127.0.0.1", port)).connect()
        server.close()
        await server.wait_closed()
        with pytest.raises(
            BoardGone, match=r"127.*: Connection refused\. Is it switched on, in this network"
        ):
            await Board(WebRepl("127.0.0.1", port)).connect()

    asyncio.run(run())


def test_something_else_there() -> None:
    async def run() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            try:
                await reader.read()
            finally:
                writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(BoardUnreachable, match="is no WebREPL: what answers there is no web server"):
                await Board(WebRepl("127.0.0.1", port)).connect()

    asyncio.run(run())


def test_addresses() -> None:
    assert transport_to(parse_address("webrepl://board")).describe() == "the WebREPL at board"
    assert transport_to(parse_address("webrepl://board:81")).describe() == "the WebREPL at board:81"
    assert transport_to(parse_address("serial:///dev/ttyUSB0")).describe() == "/dev/ttyUSB0"
    assert transport_to(parse_address("serial:///usb/1a86:7523")).describe() == "serial:///usb/1a86:7523"
    assert transport_to(parse_address("serial://pi7/dev/ttyUSB0")).describe() == "/dev/ttyUSB0 on pi7"
    with pytest.raises(Unsupported):
        transport_to(parse_address("local:"))


def test_the_password_command() -> None:
    assert password_from(["printf", "se cret\\nmore\\n"]) == "se cret"
    for command, why in (
        ("false", "exit status 1"),
        ("no-such-program", "No such file"),
        ("true", "nothing readable"),
    ):
        with pytest.raises(BoardUnreachable, match=why):
            password_from([command])
