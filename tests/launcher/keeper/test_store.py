"""What the keeper writes down."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from farkernel.launcher.keeper.store import (
    BadName,
    Store,
    StoreError,
    checked_name,
    machine_name,
    write_atomically,
)


def test_facts_come_back_and_only_the_owner_can_read_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.save("abc-1", {"kernel": "abc-1", "key": "secret"})
    assert Store(tmp_path / "state").load() == {"abc-1": {"kernel": "abc-1", "key": "secret"}}
    for directory, _, files in os.walk(tmp_path / "state"):
        assert stat.S_IMODE(os.stat(directory).st_mode) & 0o077 == 0 or directory != str(tmp_path / "state")
        for file in files:
            assert stat.S_IMODE(os.stat(os.path.join(directory, file)).st_mode) == 0o600


def test_an_unreadable_file_hinders_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.save("good", {"kernel": "good"})
    (tmp_path / "kernels" / "bad.json").write_text("{")
    (tmp_path / "kernels" / "list.json").write_text("[]")
    (tmp_path / "kernels" / "evil.json").write_text('{"kernel": "../../x"}')
    assert list(store.load()) == ["good"]
    assert {"bad.json", "list.json", "evil.json"} <= {
        word.rpartition("/")[2].rstrip(":") for word in caplog.text.split()
    }


def test_a_full_disk_leaves_the_old_content_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "facts"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device\. Make room") as caught:
        write_atomically(path, b"new")
    assert str(path) in caught.value.what
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["facts"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "-x", "x" * 129, "ü", "a\n", 5, None])
def test_names_that_are_no_safe_file_names(name: object) -> None:
    with pytest.raises(BadName):
        checked_name(name)


def test_kernel_info_is_remembered_by_menu_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.recall_info("gpu") is None
    store.remember_info("gpu", {"language_info": {"name": "python"}})
    assert Store(tmp_path).recall_info("gpu") == {"language_info": {"name": "python"}}
    assert store.recall_info("other") is None


def test_a_home_that_cannot_be_written_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    Store.default(tmp_path / "fallback").save("k", {"kernel": "k"})
    assert (tmp_path / "fallback" / "kernels" / "k.json").exists()


def test_the_machine_name_can_be_a_directory() -> None:
    assert checked_name(machine_name()) == machine_name()
