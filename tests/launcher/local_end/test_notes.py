"""What we say ourselves in a kernel's cells, and in which of them."""

from __future__ import annotations

from pathlib import Path

from farkernel.launcher.local_end.cells import MissedCount
from farkernel.launcher.local_end.notes import Notes
from farkernel.launcher.local_end.request_log import Request
from farkernel.launcher.messages import Composer, Message, Signer, pack


class Front:
    """A local end with one client, or none."""

    def __init__(self) -> None:
        self.composer = Composer(Signer(b""), "s")
        self.has_clients = True
        self.link_is_away = False
        self.cell: Request | None = None
        self.shown: list[tuple[str, str]] = []

    def publish(self, message: Message) -> None:
        self.shown.append((str(message.parent.get("msg_id", "")), message.content["text"]))

    def running_cell(self) -> Request | None:
        return self.cell


def request(name: str, silent: bool = False) -> Request:
    header = pack({"msg_id": name, "msg_type": "execute_request", "session": "s"})
    content = pack({"code": "x", "silent": silent})
    return Request(1, "shell", [b"client", b"<IDS|MSG>", b"", header, b"{}", b"{}", content], 1)


def test_a_note_waits_for_a_cell_that_is_seen() -> None:
    front, said = Front(), []
    notes = Notes(front, "3f2a")
    notes.say_once("moved\n", lambda: said.append(1))
    notes.before(request("m1", silent=True))
    front.has_clients = False
    notes.before(request("m2"))
    front.has_clients, front.link_is_away = True, True
    notes.before(request("m3"))
    assert not front.shown
    front.link_is_away = False
    notes.before(request("m4"))
    notes.before(request("m5"))
    assert front.shown == [("m4", "moved\n")]
    assert said == [1]


def test_a_notice_goes_into_the_cell_that_runs_or_the_next() -> None:
    front = Front()
    notes = Notes(front, "3f2a")
    notes.say_notice("It ends in 10 minutes")
    front.cell = request("m1")
    notes.before(front.cell)
    notes.say_notice("It ends in 2 minutes")
    assert front.shown == [
        ("m1", "[farkernel] It ends in 10 minutes\n"),
        ("m1", "[farkernel] It ends in 2 minutes\n"),
    ]


def test_what_was_dropped_is_counted() -> None:
    front = Front()
    notes = Notes(front, "3f2a")
    notes.say_dropped("output", 2_500_000, 3, 7)
    notes.say_dropped("output", None, 8, 7)
    front.cell = request("m1")
    notes.say_dropped("output", None, "?", None)
    assert [parent for parent, _ in front.shown] == ["", "", "m1"]
    assert "5 messages (2.5 MB) of this kernel's output were dropped" in front.shown[0][1]
    assert all("some messages of this kernel's output" in text for _, text in front.shown[1:])


def test_what_nobody_saw_is_said_once(tmp_path: Path) -> None:
    front, missed = Front(), MissedCount(tmp_path / "missed")
    notes = Notes(front, "3f2a")
    missed.add()
    front.has_clients = False
    notes.say_missed(request("m1"), missed)
    front.has_clients = True
    notes.say_missed(request("m2"), missed)
    notes.say_missed(request("m3"), missed)
    missed.close()
    ((parent, text),) = front.shown
    assert parent == "m2"
    assert "made 1 output: farkernel output 3f2a --into" in text
