"""Packages from folders, from an index on the loopback, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.board_kernel.packages import Finder, PackageError, Plan, checked_path, package_folders


class Index:
    """An index as micropython.org has it; `files` by path."""

    def __init__(self) -> None:
        files: dict[str, bytes] = {}
        self.files = files

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes], deps: list[list[str]] | None = None) -> None:
        hashes = []
        for path, data in files.items():
            short = hashlib.sha256(data).hexdigest()[:8]
            self.files[f"/file/{short[:2]}/{short}"] = data
            hashes.append([path, short])
        description = {"v": 1, "version": "1.0", "hashes": hashes, "deps": deps or []}
        self.files[f"/package/6/{name}/latest.json"] = json.dumps(description).encode()


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    yield index
    index.server.shutdown()
    index.server.server_close()


def plan(package: str, *folders: Path, index: str = "http://127.0.0.1:9", mpy: str = "6") -> Plan:
    return asyncio.run(Finder(folders, index, mpy).plan(package))


def test_files_and_folders_here(tmp_path: Path) -> None:
    (tmp_path / "sensor").mkdir()
    (tmp_path / "sensor/__init__.py").write_text("x = 1\n")
    (tmp_path / "sensor/__pycache__").mkdir()
    (tmp_path / "sensor/__pycache__/a.pyc").write_bytes(b"x")
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers/lcd.py").write_text("y = 2\n")
    assert plan(str(tmp_path / "drivers/lcd.py")).files == {"lcd.py": b"y = 2\n"}
    assert plan(str(tmp_path / "drivers")).files == {"lcd.py": b"y = 2\n"}
    assert plan("sensor", tmp_path).files == {"sensor/__init__.py": b"x = 1\n"}
    assert plan("lcd", tmp_path / "drivers").files == {"lcd.py": b"y = 2\n"}


def test_a_description_here_with_dependencies(tmp_path: Path) -> None:
    (tmp_path / "robot/src").mkdir(parents=True)
    (tmp_path / "robot/src/main.py").write_text("z = 3\n")
    (tmp_path / "motor.py").write_text("m = 1\n")
    description = {"urls": [["robot/main.py", "src/main.py"]], "deps": [["motor", "latest"]], "version": "1"}
    (tmp_path / "robot/package.json").write_text(json.dumps(description))
    found = plan("robot", tmp_path)
    assert found.files == {"robot/main.py": b"z = 3\n", "motor.py": b"m = 1\n"}


def test_from_an_index_with_dependencies_in_a_circle(index: Index) -> None:
    index.add("web", {"web/__init__.mpy": b"M\x06web"}, [["json2", "latest"]])
    index.add("json2", {"json2.mpy": b"M\x06json"}, [["web", "latest"]])
    found = plan("web", index=index.url)
    assert found.files == {"web/__init__.mpy": b"M\x06web", "json2.mpy": b"M\x06json"}
    assert found.sources[0].endswith("/package/6/json2/latest.json")


def test_by_address(index: Index) -> None:
    index.files["/x/package.json"] = json.dumps({"urls": [["a.py", "a.py"]]}).encode()
    index.files["/x/a.py"] = b"a = 1\n"
    assert plan(f"{index.url}/x").files == {"a.py": b"a = 1\n"}
    assert plan(f"{index.url}/x/a.py").files == {"a.py": b"a = 1\n"}


def test_our_own_module_needs_no_network() -> None:
    assert b"def display(" in plan("farkernel").files["farkernel.py"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"nonsense", "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (b'{"urls": [["../boot.py", "a.py"]]}', "wants to write to '../boot.py'"),
        (b'{"urls": [["/boot.py", "a.py"]]}', "wants to write to '/boot.py'"),
        (b'{"urls": [["a.py", "../../etc/passwd"]]}', "wants to write to '../../etc/passwd'"),
        (b'{"urls": "a"}', "not well-formed"),
        (b'{"hashes": [["a.py", "../../x"]]}', "is no hash"),
    ],
)
def test_descriptions_that_are_refused(index: Index, content: bytes, why: str) -> None:
    index.files["/package/6/bad/latest.json"] = content
    with pytest.raises(PackageError, match=why):
        plan("bad", index=index.url)


def test_a_file_that_was_changed_is_refused(index: Index) -> None:
    index.add("web", {"web.mpy": b"right"})
    for path in index.files:
        if path.startswith("/file/"):
            index.files[path] = b"wrong"
    with pytest.raises(PackageError, match="is not what the index says"):
        plan("web", index=index.url)


def test_what_is_not_there(index: Index) -> None:
    with pytest.raises(PackageError, match="there is no such package or version") as caught:
        plan("nothing", index=index.url)
    assert "Without a network give a folder" in caught.value.advice
    with pytest.raises(PackageError, match="cannot be reached"):
        plan("nothing")
    with pytest.raises(PackageError, match="No such file"):
        plan("./nothing.py")
    with pytest.raises(PackageError, match="no usable name"):
        plan("no thing")


def test_paths_and_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert checked_path("p", "a/b.py") == "a/b.py"
    monkeypatch.setenv("FARKERNEL_PACKAGES", f"{tmp_path}/a:{tmp_path}/b")
    folders = package_folders(["given"])
    assert [str(folder) for folder in folders[:3]] == ["given", f"{tmp_path}/a", f"{tmp_path}/b"]
    assert folders[3].parts[-2:] == ("farkernel", "packages")
