"""What is read out of a folder, and what is refused: nothing from outside of it, nothing without an end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.device_images.errors import DoesNotFit, ImageError, UnfitFile, UnfitName, UnreadableFile
from farkernel.device_images.folder import BoardFile, read_folder

LIMIT = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "lesson"
    (place / "lib").mkdir(parents=True)
    (place / "main.py").write_bytes(b"print(1)\n")
    (place / "lib" / "sensor.py").write_bytes(b"x = 1\n")
    return place


def test_files_and_folders(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "größe.txt").write_bytes(b"")
    content = read_folder(folder, LIMIT)
    assert content.files == (
        BoardFile("größe.txt", b""),
        BoardFile("lib/sensor.py", b"x = 1\n"),
        BoardFile("main.py", b"print(1)\n"),
    ) or content.files == (
        BoardFile("lib/sensor.py", b"x = 1\n"),
        BoardFile("main.py", b"print(1)\n"),
        BoardFile("größe.txt", b""),
    )
    assert content.folders == ("empty", "lib")
    assert content.left_out == ()


def test_what_editors_and_python_leave_behind_is_left_out(folder: Path) -> None:
    for name in (".git", "__pycache__"):
        (folder / name).mkdir()
        (folder / name / "large").write_bytes(b"x" * 100)
    (folder / "lib" / "old.pyc").write_bytes(b"x")
    content = read_folder(folder, LIMIT)
    assert [file.path for file in content.files] == ["lib/sensor.py", "main.py"]
    assert content.left_out == (".git", "__pycache__", "lib/old.pyc")


def test_a_link_inside_stands_for_its_file(folder: Path) -> None:
    (folder / "again.py").symlink_to("lib/sensor.py")
    assert BoardFile("again.py", b"x = 1\n") in read_folder(folder, LIMIT).files


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert len(read_folder(tmp_path / "link", LIMIT).files) == 2


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "/etc", "lib/../../secret"])
def test_a_link_out_of_the_folder(folder: Path, target: str) -> None:
    (folder.parent / "secret").write_text("secret")
    (folder / "data.txt").symlink_to(target)
    with pytest.raises(UnfitFile, match="it is a link to something outside the folder") as error:
        read_folder(folder, LIMIT)
    assert "'data.txt'" in error.value.what
    assert error.value.advice == "Copy what it points to into the folder"


def test_a_link_to_a_folder_beside_it_with_the_same_beginning(folder: Path) -> None:
    other = folder.parent / "lesson2"
    other.mkdir()
    (other / "secret").write_text("secret")
    (folder / "data.txt").symlink_to("../lesson2/secret")
    with pytest.raises(UnfitFile, match="outside the folder"):
        read_folder(folder, LIMIT)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere", "No such file"),
        ("loop", "(?i)symlink loop|symbolic link"),
        (".", "a link to another folder"),
    ],
)
def test_links_that_lead_nowhere(folder: Path, target: str, reason: str) -> None:
    (folder / "loop").symlink_to(target)
    with pytest.raises(ImageError, match=reason):
        read_folder(folder, LIMIT)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnfitFile, match="it is not an ordinary file"):
        read_folder(folder, LIMIT)


def test_a_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        with pytest.raises(ImageError, match="'socket'"):
            read_folder(folder, LIMIT)


def test_a_name_that_is_not_utf_8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.py")).write_bytes(b"")
    with pytest.raises(UnfitName, match="its name is not UTF-8") as error:
        read_folder(folder, LIMIT)
    error.value.what.encode("ascii")  # it can be shown anywhere


@pytest.mark.parametrize("name", ["a\nb.py", "\x1b[31mred", "back\\slash", "right\u202eleft"])
def test_names_that_cannot_be_typed(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(UnfitName, match="cannot be typed") as error:
        read_folder(folder, LIMIT)
    assert error.value.what.isprintable()


def test_a_huge_file_is_not_read(folder: Path) -> None:
    with open(folder / "huge.bin", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DoesNotFit, match=r"huge\.bin \(1073741824 KiB\)"):
        read_folder(folder, LIMIT)


def test_many_files_that_are_too_much_together(folder: Path) -> None:
    for number in range(5):
        (folder / f"part{number}").write_bytes(b"x" * 300_000)
    with pytest.raises(DoesNotFit, match=r"do not fit into the board's 1024 KiB.*the largest: part0"):
        read_folder(folder, LIMIT)


def test_an_unreadable_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "main.py").chmod(0)
    if os.geteuid() == 0:  # root may read all: somebody else is asked for the error
        real = os.open

        def refuse(path: str | os.PathLike[str], *rest: int, **more: int) -> int:
            if Path(path).name == "main.py":
                raise PermissionError(13, "Permission denied")
            return real(path, *rest, **more)

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnreadableFile, match=r"'main\.py' cannot be read: Permission denied"):
        read_folder(folder, LIMIT)


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere", "No such file"), ("lesson/main.py", "it is not a folder")]
)
def test_no_folder(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        read_folder(folder.parent / name, LIMIT)


def test_too_deep(folder: Path) -> None:
    (folder / Path(*["deeper"] * 20)).mkdir(parents=True)
    with pytest.raises(UnfitFile, match="more than 16 folders deep"):
        read_folder(folder, LIMIT)


@given(st.text(min_size=1, max_size=20).filter(lambda name: "/" not in name and "\0" not in name))
def test_any_name_is_taken_as_it_is_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    place = tmp_path_factory.mktemp("any")
    try:
        (place / name).write_bytes(b"content")
    except (OSError, UnicodeEncodeError):
        return
    try:
        content = read_folder(place, LIMIT)
    except UnfitName:
        return
    assert content.files == (BoardFile(name, b"content"),) or content.left_out == (name,)
