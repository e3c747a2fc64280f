"""Magics on a MicroPython 1.25 in QEMU, by the kernel's own process; several boards with fake ones."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from farkernel.launcher.board_kernel.magics import TABLE, explain

from ...sites.boards import VirtualBoard, microbit, mps2
from ...sites.engine import DEADLINE, Outcome, collect, connected, run_cell, wait_until
from .fake_board import FakeBoard
from .site import kernel_site


@pytest.fixture
def board(home: Path) -> Iterator[VirtualBoard]:
    with mps2(home) as board:
        yield board


@contextmanager
def kernel_of(board: VirtualBoard, home: Path) -> Iterator[BlockingKernelClient]:
    """Of a kernel that works in a folder of its own."""
    work = home / "work"
    work.mkdir()
    file, connection = write_connection_file(str(home / "kernel.json"))
    command = [sys.executable, "-P", "-m", "farkernel.launcher.board_kernel", "-f", file]
    process = subprocess.Popen([*command, "--device", str(board.device), "--name", "board"], cwd=work)
    try:
        # A client takes a kernel for dead that is not yet there.
        wait_until(lambda: listens(connection["hb_port"]), "the kernel's sockets")
        with connected(file) as client:
            yield client
            client.shutdown()
            process.wait(DEADLINE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def client(board: VirtualBoard, home: Path) -> Iterator[BlockingKernelClient]:
    with kernel_of(board, home) as client:
        yield client


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def done(client: BlockingKernelClient, code: str) -> Outcome:
    outcome = run_cell(client, code)
    assert outcome.reply["content"]["status"] == "ok", outcome.error
    return outcome


def value(client: BlockingKernelClient, code: str) -> str:
    (result,) = [each for each in done(client, code).outputs if each["msg_type"] == "execute_result"]
    return str(result["content"]["data"]["text/plain"])


@pytest.mark.servers
def test_files(client: BlockingKernelClient, home: Path) -> None:
    work = home / "work"
    assert done(client, "%%put main2.py\nx = 'é'").text == "main2.py: 9 bytes written to board\n"
    assert value(client, "import main2\nmain2.x") == "'\\xe9'"
    assert done(client, "%cat main2.py").text == "x = 'é'\n"
    done(client, "%mkdir -p a/b")
    (work / "data.bin").write_bytes(bytes(range(256)))
    done(client, "%put data.bin a/b")
    assert "       256  data.bin" in done(client, "%ls a/b").text
    done(client, "%get a/b/data.bin copy.bin")
    assert (work / "copy.bin").read_bytes() == bytes(range(256))
    done(client, "%cp :a/b/data.bin :c.bin")
    done(client, "%mv c.bin d.bin")
    assert done(client, "%sha256sum d.bin").text.startswith("40aff2e9d2d8922e47afd4648e696749")
    assert "    b/\n        data.bin\n" in done(client, "%tree").text
    done(client, "%rm d.bin main2.py")
    done(client, "%rm -r a")
    assert "bytes are used" in done(client, "%df").text
    assert done(client, "%ls").text.split() == ["23", "boot.py"]
    missing = run_cell(client, "%cat nothing.txt")
    assert missing.reply["content"]["ename"] == "BoardFileError"
    assert "nothing.txt" in missing.error
    assert "LocalFileError" in run_cell(client, "%put nothing.txt").error


@pytest.mark.servers
def test_folders_and_packages(client: BlockingKernelClient, home: Path) -> None:
    work = home / "work"
    (work / "app/lib").mkdir(parents=True)
    (work / "app/main.py").write_text("print('main')\n")
    (work / "app/lib/helper.py").write_text("def help(): return 5\n")
    assert "2 sent" in done(client, "%sync app /app").text
    assert "0 sent (0 bytes), 2 were the same" in done(client, "%sync app /app").text
    (work / "app/main.py").unlink()
    assert "removed   /app/main.py" in done(client, "%sync --delete app /app").text
    (work / "packages").mkdir()
    (work / "packages/sensor.py").write_text("def read(): return 21\n")
    installed = done(client, "%mip install --from packages sensor").text
    assert "lib/sensor.py: 22 bytes" in installed
    assert value(client, "import sensor\nsensor.read()") == "21"
    assert "farkernel.py" in done(client, "%mip install farkernel").text
    done(client, "%reset")
    (display,) = (
        each
        for each in done(client, "import farkernel\nfarkernel.html('<b/>')").outputs
        if each["msg_type"] == "display_data"
    )
    assert display["content"]["data"]["text/html"] == "<b/>"


@pytest.mark.servers
def test_running_and_resets(client: BlockingKernelClient, home: Path) -> None:
    (home / "work/job.py").write_text("y = 7\nprint('job')\n6 * 7\n")
    assert value(client, "%run job.py") == "42"
    assert value(client, "y") == "7"
    assert "µs each, on board" in done(client, "%timeit y + 1").text
    assert "Time: " in done(client, "%%time\nz = 1").text
    done(client, "%%capture out.txt\nfor i in range(3): print(i)")
    assert (home / "work/out.txt").read_text() == "0\n1\n2\n"
    failed = run_cell(client, "%%capture --append out.txt\nprint('more')\n1 / 0")
    assert failed.reply["content"]["ename"] == "ZeroDivisionError"
    assert (home / "work/out.txt").read_text() == "0\n1\n2\nmore\n"
    assert "mps2" in done(client, "%info").text
    assert "y               int         7" in done(client, "%who").text
    assert "has a fresh interpreter" in done(client, "%reset").text
    assert run_cell(client, "y").reply["content"]["ename"] == "NameError"
    assert "was reset and is back" in done(client, "%reset --hard").text
    assert value(client, "1 + 1") == "2"
    done(client, "%disconnect")
    assert run_cell(client, "1").reply["content"]["ename"] == "NoBoard"
    assert "Connected to again: " in done(client, f"%connect --as again {home / 'board'}").text
    assert value(client, "2 + 2") == "4"


@pytest.mark.servers
def test_a_folder_of_this_side(client: BlockingKernelClient, home: Path) -> None:
    assert done(client, "%umount").text == "Nothing is mounted on board.\n"
    assert done(client, "%mount").text == "Nothing is mounted on board: %mount FOLDER\n"
    assert "it is not a folder" in run_cell(client, "%mount nothing").error
    shared = home / "work/shared"
    shared.mkdir()
    (shared / "helper.py").write_text("def help(): return 5\n")
    (shared / "question.py").write_text("name = input('Who? ')\nprint('hello', name)\n")
    said = done(client, "%mount shared").text
    assert said.startswith(f"{shared} is /remote on board\n/remote is its current folder now")
    assert value(client, "import helper\nhelper.help()") == "5"
    assert "helper.py" in done(client, "%ls").text
    done(client, "%cp :helper.py :copy.py")
    assert (shared / "copy.py").read_text() == "def help(): return 5\n"
    # Answers of a person and of the folder do not meet.
    asked = client.execute("import question\nprint(open('copy.py').read())", allow_stdin=True)
    assert client.get_stdin_msg(timeout=DEADLINE)["content"]["prompt"] == "Who? "
    client.input("Zoë")
    assert collect(client, asked).text == "hello Zoë\ndef help(): return 5\n\n"
    # A reset does not end it.
    done(client, "%reset")
    (shared / "helper.py").write_text("def help(): return 6\n")
    assert value(client, "import helper\nhelper.help()") == "6"
    assert done(client, "%mount").text == f"{shared} is /remote on board\n"
    done(client, "%mount --read-only shared")
    assert (
        run_cell(client, "open('new', 'w')").reply["content"]["evalue"] == "30"
    )  # EROFS: MicroPython has no word for it
    assert done(client, "%umount").text == f"{shared} is no longer mounted on board.\n"
    assert "helper.py" not in done(client, "%ls").text


@pytest.mark.servers
def test_the_others(client: BlockingKernelClient, board: VirtualBoard, home: Path) -> None:
    done(client, "%%put note.txt\nhello")
    (load,) = done(client, "%load note.txt").reply["content"]["payload"]
    assert (load["source"], load["text"]) == ("set_next_input", "%%put note.txt\nhello\n")
    done(client, "%touch note.txt empty")
    assert "         6  note.txt\n" in done(client, "%ls").text
    assert "         0  empty\n" in done(client, "%ls -l").text
    done(client, "%mkdir sub")
    assert done(client, "%ls sub").text == "(no files)\n"
    done(client, "%cd sub")
    assert done(client, "%pwd").text == f"on board: /sub\nhere: {home / 'work'}\n"
    done(client, "%cd")
    done(client, "%rmdir sub")
    assert "there is no 'sub' on the board\n%ls shows" in run_cell(client, "%cd sub").error
    assert (
        "there is no folder 'no' on the board\nMake it first: %mkdir no"
        in run_cell(client, "%%put no/x\n1").error
    )
    done(client, "%exec x = 5")
    assert value(client, "%eval x + 1") == "6"
    assert run_cell(client, "%eval nope").reply["content"]["ename"] == "NameError"
    assert done(client, "%time y = 7").text.startswith("Time: ")
    assert "machine\n" in done(client, "%modules").text
    assert done(client, "%mem").text.endswith(" bytes are free\n")
    assert "   1: %%put note.txt\n      hello\n" in done(client, "%history").text
    done(client, "%ports")
    assert done(client, "%resume").text.endswith("nothing was reset.\n")
    assert value(client, "x") == "5"
    assert "has no clock that can be set" in run_cell(client, "%rtc --set").error
    assert "cannot start its bootloader by itself" in run_cell(client, "%reset --bootloader").error
    # A firmware that has one: the program there is silent from then on.
    done(client, "%mkdir lib")
    done(client, "%%put lib/machine.py\nimport time\ndef bootloader():\n while True: time.sleep(1)")
    done(client, "%reset")
    assert "board is in its bootloader" in done(client, "%reset --bootloader").text
    assert "and runs no programs\nWhen another firmware" in run_cell(client, "1 + 1").error
    assert "(closed)" in done(client, "%board").text  # nothing of ours is in the way of whoever flashes it
    assert "Connected to board" in done(client, "%connect").text
    done(client, "%rm lib/machine.py")


MEMORY_HINT = "The board has no memory left for that. `del NAME` frees"


@pytest.mark.servers
def test_a_full_memory(client: BlockingKernelClient) -> None:
    failed = run_cell(client, "x = []\nwhile True: x.append('abc' * 100)")
    assert failed.reply["content"]["ename"] == "MemoryError"
    assert MEMORY_HINT in failed.error
    # So full that nothing can be compiled any more; the resets work all the same.
    for reset in ("%reset --hard", "%reset"):
        run_cell(client, "x = []\nwhile True: x.append(bytearray(20))")
        assert MEMORY_HINT in run_cell(client, "1 / 0").error
        done(client, reset)
        assert value(client, "6 * 7") == "42"


@pytest.mark.servers
def test_a_board_that_is_not_there_takes_no_cells(client: BlockingKernelClient) -> None:
    failed = run_cell(client, "%connect /dev/ttyNONE9 --wait 1")
    assert failed.reply["content"]["ename"] == "BoardAway"
    assert done(client, "print('here')").text == "here\n"
    assert "ttyNONE9" not in done(client, "%board").text


@pytest.mark.servers
def test_pictures(client: BlockingKernelClient) -> None:
    outcome = done(client, "%%plot\nprint('begin')\nfor i in range(200): print(i, i * i)")
    assert outcome.text == "begin\n"
    kinds = [each["msg_type"] for each in outcome.outputs if "display" in each["msg_type"]]
    assert kinds[0] == "display_data"
    assert set(kinds[1:]) <= {"update_display_data"}
    assert len(kinds) < 30  # 200 lines take 0.2 s of the wire
    last = [each for each in outcome.outputs if "display" in each["msg_type"]][-1]
    assert last["content"]["data"]["image/svg+xml"].count("<polyline") == 2
    assert last["content"]["transient"]["display_id"].startswith("plot-")
    png = done(client, "import farkernel\nfarkernel.display(b'\\x89PNG' + bytes(300))")
    (picture,) = (each for each in png.outputs if each["msg_type"] == "display_data")
    assert len(picture["content"]["data"]["image/png"]) == 408
    changed = done(client, "farkernel.display('one', id='a')\nfarkernel.update('a', 'two')")
    shown = [
        (each["msg_type"], each["content"]["data"])
        for each in changed.outputs
        if "display" in each["msg_type"]
    ]
    assert shown == [
        ("display_data", {"text/plain": "one"}),
        ("update_display_data", {"text/plain": "two"}),
    ]
    assert "no line of numbers" in done(client, "%%plot\nprint('words')").text.lower()


@pytest.mark.servers
def test_on_the_micro_bit(home: Path) -> None:
    """What its firmware has no functions for, is said in a sentence; all else works."""
    with microbit(home) as board, kernel_of(board, home) as client:
        assert "micro:bit" in done(client, "%info").text
        assert done(client, "%%put a.py\nx = 4").text == "a.py: 6 bytes written to board\n"
        assert done(client, "%ls").text == "         6  a.py\n"
        assert done(client, "%cat a.py").text == "x = 4\n"
        assert value(client, "%run :a.py\nx * 2") == "8"
        done(client, "%get a.py copy.py")
        assert (home / "work/copy.py").read_text() == "x = 4\n"
        (home / "work/app").mkdir()
        (home / "work/app/b.py").write_text("y = 5\n")
        assert "1 sent" in done(client, "%sync app").text
        assert value(client, "import b\nb.y") == "5"
        assert "installed on board" in done(client, "%mip install ./app/b.py").text
        assert done(client, "%sha256sum a.py").text.endswith("  a.py\n")
        assert done(client, "%timeit x + 1").text.endswith(" times\n")
        assert done(client, "%pwd").text.startswith("on board: / (it has no directories)\n")
        assert "x               int         4\n" in done(client, "%who").text
        assert "microbit\n" in done(client, "%modules").text
        for lacks in ("%mkdir d", "%rmdir d", "%cd d", "%mv a.py c.py", "%df"):
            assert "this board's firmware has no function for that (no " in run_cell(client, lacks).error
        assert "cannot show a folder of this side" in run_cell(client, "%mount app").error
        assert "has no clock" in run_cell(client, "%rtc").error
        run_cell(client, "x = []\nwhile True: x.append(bytearray(20))")
        assert MEMORY_HINT in run_cell(client, "1 / 0").error
        assert "was reset and is back" in done(client, "%reset --hard").text
        assert run_cell(client, "x").reply["content"]["ename"] == "NameError"
        done(client, "%rm a.py b.py")
        assert done(client, "%ls").text == "(no files)\n"


def test_each_has_a_page_and_is_told_of() -> None:
    documented = (Path(__file__).parents[3] / "docs/boards.md").read_text()
    for name, magic in TABLE.items():
        assert magic.page().startswith(f"{magic.call} {magic.usage}".rstrip()), name
        assert magic.summary in magic.page()
        assert magic.summary.endswith("."), name
        for alias in (name, *magic.aliases):
            assert explain(f"%{alias}") == magic.page()
        assert re.search(rf"%{name}\b", documented), f"%{name} is not in docs/boards.md"


def test_help(home: Path) -> None:
    with kernel_site(home) as (_, client):
        listed = done(client, "%lsmagic").text
        assert "%connect" in listed
        assert "%%capture" in listed
        assert "Usage" not in listed
        assert done(client, "%help ls").text.startswith("%ls [-l|--long] [PATH…]")
        (page,) = done(client, "%ls?").reply["content"]["payload"]
        assert page["data"]["text/plain"].startswith("%ls")
        assert "Did you mean %lsmagic?" in run_cell(client, "%lsmagi").error
        assert "Usage: %get BOARD [LOCAL]" in run_cell(client, "%get").error
        assert "write %%capture in its first line" in run_cell(client, "%capture x").error
        assert "%%ls is for one line" in run_cell(client, "%%ls\nx").error


def test_several_boards(home: Path) -> None:
    with kernel_site(home) as (site, client):
        done(client, "%connect --as other /dev/other")
        done(client, "x = 'other'")
        done(client, "%board board")
        done(client, "x = 'first'")
        outcome = done(client, "%%board all\nprint(x)\nprint('done')")
        assert sorted(outcome.text.splitlines()) == [
            "board │ done",
            "board │ first",
            "other │ done",
            "other │ other",
        ]
        assert done(client, "%%board other\nprint(x)").text == "other\n"
        listed = done(client, "%board").text
        assert listed.startswith("* board: fake board")
        failed = run_cell(client, "%%board board other\nif x == 'other': raise ValueError(x)")
        assert failed.reply["content"]["ename"] == "ValueError"
        assert "no board is called 'third'" in run_cell(client, "%%board third\nx").error
        assert set(site.fakes) == {"serial:///dev/fake", "serial:///dev/other"}


def test_a_cell_on_this_machine(home: Path) -> None:
    with kernel_site(home) as (_, client):
        assert value(client, "%%local\nimport os\nx = 6\nx * 7") == "42"
        assert value(client, "%%local\nos.getpid()") != str(os.getpid())
        assert done(client, "%local print(x)").text == "6\n"
        asked = client.execute("%%local\ninput('Who? ')", allow_stdin=True)
        assert client.get_stdin_msg(timeout=DEADLINE)["content"]["prompt"] == "Who? "
        client.input("Zoë")
        (result,) = [each for each in collect(client, asked).outputs if each["msg_type"] == "execute_result"]
        assert result["content"]["data"]["text/plain"] == "'Zoë'"
        assert "ZeroDivisionError" in run_cell(client, "%%local\n1 / 0").error
        running = client.execute("%%local\nimport time\nprint('begun', flush=True)\ntime.sleep(600)")
        while client.get_iopub_msg(timeout=DEADLINE)["msg_type"] != "stream":
            pass
        client.control_channel.send(client.session.msg("interrupt_request"))
        assert collect(client, running).reply["content"]["ename"] == "KeyboardInterrupt"
        assert done(client, "%local print(x)").text == "6\n"
        ended = run_cell(client, "%%local\nos._exit(3)")
        assert ended.reply["content"]["ename"] == "LocalEnded"
        assert "status 3" in ended.error
        assert run_cell(client, "%local print(x)").reply["content"]["ename"] == "NameError"


def test_a_board_that_comes_back_with_a_new_memory(home: Path) -> None:
    with kernel_site(home) as (site, client):
        done(client, "x = 1")
        site.in_loop(site.board.pull)
        waiting = client.execute("'x' in globals()")
        while "waiting for the board" not in client.get_iopub_msg(timeout=DEADLINE)["content"].get(
            "text", ""
        ):
            pass
        site.in_loop(site.board.plug)
        outcome = collect(client, waiting)
        assert "is there: board: fake board" in outcome.text
        assert "its variables may be gone" in done(client, "1").text


def test_a_board_that_does_not_come(home: Path) -> None:
    def away(board: FakeBoard) -> None:
        board.plugged = False

    with kernel_site(home, patience=0.5, prepare=away) as (_, client):
        outcome = run_cell(client, "1")
        assert outcome.reply["content"]["ename"] == "BoardAway"
        assert "did not come within 0 s" in outcome.error or "did not come within 1 s" in outcome.error
