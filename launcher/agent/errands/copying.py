"""A copy of files over two pipes, for machines without rsync: one end gives, the other takes; either may be far.

The far end runs this file as a program, which imports nothing of ours.  First a line of JSON from the near end: the
order.  Then the giver's list (a line for each entry), the taker's wants (lines of numbers), the wanted files (pieces,
each with its size before it), and the taker's result (a line).

The taker trusts nobody: names are checked, nothing that the list did not make is entered, symbolic links are not
followed below the destination, and a file appears whole under its name or not at all.
"""

import errno
import json
import os
import select
import signal
import stat
import struct
import sys
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional, Tuple

_PIECE = 1 << 17
_SIZE = struct.Struct(">I")
_BROKEN = 0xFFFFFFFF
_WANTS = 1000
_MOST_TOLD = 20
_MOST_CHANGES = 10000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Entry = Dict[str, Any]  # path, kind (file, directory, link), size, time (ns), mode, to (of a link)
Progress = Callable[[int, int, str], None]  # bytes that have gone, bytes in all, the file


class Refused(Exception):
    """What the other end says cannot be, or there is nothing to begin with; the text is for people."""


def say(stream: BinaryIO, value: Any) -> None:
    stream.write(json.dumps(value).encode("ascii") + b"\n")


def hear(stream: BinaryIO) -> Any:
    """The next line; raises `Refused` where there is none."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise Refused("the other end stopped in the middle")
    try:
        value = json.loads(line.decode("ascii"))
    except ValueError:
        raise Refused("the other end said what is no JSON") from None
    if isinstance(value, dict) and value.get("refused"):
        raise Refused(str(value["refused"])[:1000])
    return value


# -- giving -----------------------------------------------------------------------------------------------------


def entries(root: str) -> Iterator[Entry]:
    """A directory's content, each directory before what is in it; a file is one entry.  Raises `Refused`."""
    try:
        top = os.stat(root)
    except OSError as error:
        raise Refused("%s: %s" % (root, error.strerror)) from None
    if not stat.S_ISDIR(top.st_mode):
        if not stat.S_ISREG(top.st_mode):
            raise Refused("%s is neither a file nor a directory" % root)
        yield dict(_described(top, root), path=os.path.basename(root.rstrip("/")))
        return
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            names = sorted(os.listdir(os.path.join(root, inside)))
        except OSError as error:
            yield {"path": inside, "kind": "unreadable", "why": error.strerror}
            continue
        for name in names:
            path = os.path.join(inside, name)
            try:
                entry = _described(os.lstat(os.path.join(root, path)), os.path.join(root, path))
            except OSError:
                continue  # it went meanwhile
            yield dict(entry, path=path)
            if entry["kind"] == "directory":
                waiting.append(path)


def _described(facts: os.stat_result, full: str) -> Entry:
    entry = {"size": facts.st_size, "time": facts.st_mtime_ns, "mode": stat.S_IMODE(facts.st_mode)}
    if stat.S_ISDIR(facts.st_mode):
        return dict(entry, kind="directory")
    if stat.S_ISLNK(facts.st_mode):
        return dict(entry, kind="link", to=os.readlink(full))
    return dict(entry, kind="file" if stat.S_ISREG(facts.st_mode) else "special")


def give(
    root: str,
    hearing: BinaryIO,
    saying: BinaryIO,
    progress: Progress,
    interrupted: Callable[[], bool],
) -> Dict[str, Any]:
    """Returns the taker's result.  ``interrupted``: the taker has something to say before its time."""
    listed: List[Entry] = []
    for entry in entries(root):
        listed.append(entry)
        say(saying, entry)
    say(saying, {"end": len(listed), "single": not os.path.isdir(root)})
    saying.flush()
    wanted = _wanted(hearing, len(listed))
    total = sum(int(listed[number].get("size", 0)) for number in wanted)
    gone = 0
    for number in wanted:
        path = listed[number]["path"] if os.path.isdir(root) else ""
        full = os.path.join(root, path) if path else root
        for size in _give_file(full, saying):
            gone += size
            progress(gone, total, str(listed[number]["path"]))
        if interrupted():
            break
    saying.flush()
    result = hear(hearing)
    if not isinstance(result, dict):
        raise Refused("the other end gave no result")
    return result


def _wanted(hearing: BinaryIO, count: int) -> List[int]:
    wanted: List[int] = []
    while True:
        line = hear(hearing)
        if not isinstance(line, list) or not all(isinstance(one, int) and 0 <= one < count for one in line):
            raise Refused("the other end wants what it was not offered")
        if not line:
            return wanted
        wanted += line


def _give_file(full: str, saying: BinaryIO) -> Iterator[int]:
    """A file that shrinks or vanishes meanwhile is broken off, and so told."""
    try:
        descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        saying.write(_SIZE.pack(_BROKEN))
        return
    with os.fdopen(descriptor, "rb", 0) as stream:
        while True:
            try:
                data = stream.read(_PIECE)
            except OSError:
                saying.write(_SIZE.pack(_BROKEN))
                return
            saying.write(_SIZE.pack(len(data or b"")))
            if not data:
                return
            saying.write(data)
            yield len(data)


# -- taking -----------------------------------------------------------------------------------------------------


class Taker(object):
    """Puts what is given below one directory."""

    def __init__(self, root: str, dry: bool, progress: Progress) -> None:
        self.files = self.bytes = self.same = self.failures = 0
        self.failed: List[Tuple[str, str]] = []
        self.changes: List[Tuple[str, str]] = []
        self.fatal: Optional[str] = None
        self._root = root
        self._dry = dry
        self._progress = progress
        self._top = -1
        self._single = ""

    def __repr__(self) -> str:
        return "<Taker into %s: %d files, %d failures>" % (self._root, self.files, self.failures)

    def take(self, hearing: BinaryIO, saying: BinaryIO) -> Dict[str, Any]:
        listed = self._listen(hearing)
        wanted: List[int] = []
        try:
            wanted = self._compare(listed)
        except OSError as error:
            self.fatal = "%s: %s" % (self._root, error.strerror)
        for start in range(0, len(wanted), _WANTS):
            say(saying, wanted[start : start + _WANTS])
        say(saying, [])
        saying.flush()
        total = sum(listed[number]["size"] for number in wanted)
        for number in wanted:
            if self.fatal is not None:
                break
            self._take_file(listed[number], hearing, total)
        if self.fatal is None and not self._dry:
            self._finish_directories(listed)
        result = self.result()
        say(saying, result)
        saying.flush()
        return result

    def result(self) -> Dict[str, Any]:
        names = ("files", "bytes", "same", "failures", "failed", "changes", "fatal")
        return {name: getattr(self, name) for name in names}

    def _listen(self, hearing: BinaryIO) -> List[Entry]:
        listed: List[Entry] = []
        directories = {""}
        seen = set()
        while True:
            entry = hear(hearing)
            if not isinstance(entry, dict):
                raise Refused("the other end lists what is no entry")
            if "end" in entry:
                if entry.get("single"):
                    self._be_single(listed)
                return listed
            check(entry, directories)
            if entry["path"] in seen and entry["kind"] != "unreadable":
                raise Refused("the other end lists %r twice" % entry["path"])
            seen.add(entry["path"])
            if entry["kind"] == "directory":
                directories.add(entry["path"])
            listed.append(entry)

    def _be_single(self, listed: List[Entry]) -> None:
        """A file: the destination is its new name, unless it is a directory."""
        if len(listed) != 1 or listed[0]["kind"] != "file":
            raise Refused("the other end lists no file")
        if not self._root.endswith("/") and not os.path.isdir(self._root):
            listed[0]["path"] = os.path.basename(self._root)
            self._root = os.path.dirname(self._root) or "."

    def _compare(self, listed: List[Entry]) -> List[int]:
        """Make directories and links; the numbers of the files that are missing or other ones."""
        if not self._dry:
            os.makedirs(self._root, exist_ok=True)
        elif not os.path.isdir(self._root):
            self._note_all(listed)
            return []
        self._top = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        wanted = []
        for number, entry in enumerate(listed):
            if entry["kind"] in ("special", "unreadable"):
                self._fail(entry["path"], str(entry.get("why") or "neither file, directory nor link"))
                continue
            try:
                if self._place(entry):
                    wanted.append(number)
            except OSError as error:
                self._failed(entry["path"], error)
            if self.fatal is not None:
                return []
        return [] if self._dry else wanted

    def _note_all(self, listed: List[Entry]) -> None:
        for entry in listed:
            self._change("new", entry)

    def _place(self, entry: Entry) -> bool:
        """Whether its content has to be sent."""
        parent, name = self._parent(entry["path"])
        if parent is None:
            self._change("new", entry)  # dry, and its directory is not there
            return False
        try:
            there = _lstat(name, parent)
            if entry["kind"] == "directory":
                self._place_directory(entry, name, parent, there)
                return False
            if there is not None and stat.S_ISDIR(there.st_mode):
                raise OSError(errno.EISDIR, "a directory is in the way")
            if there is not None and self._is_same(entry, name, parent, there):
                self.same += 1
                return False
            self._change("new" if there is None else "changed", entry)
            if entry["kind"] == "link" and not self._dry:
                self._place_link(entry, name, parent)
            return bool(entry["kind"] == "file")
        finally:
            os.close(parent)

    def _place_directory(self, entry: Entry, name: str, parent: int, there: Optional[os.stat_result]) -> None:
        if there is None:
            self._change("new", entry)
            if not self._dry:
                os.mkdir(name, 0o700, dir_fd=parent)
        elif not stat.S_ISDIR(there.st_mode):
            raise OSError(errno.ENOTDIR, "what is there is no directory")

    def _is_same(self, entry: Entry, name: str, parent: int, there: os.stat_result) -> bool:
        if entry["kind"] == "link":
            return stat.S_ISLNK(there.st_mode) and os.readlink(name, dir_fd=parent) == entry["to"]
        # Some file systems keep whole seconds only.
        times = (there.st_mtime_ns, entry["time"])
        alike = times[0] == times[1] or (0 in (times[0] % 10**9, times[1] % 10**9) and _seconds(times))
        return stat.S_ISREG(there.st_mode) and there.st_size == entry["size"] and alike

    def _place_link(self, entry: Entry, name: str, parent: int) -> None:
        temporary = _temporary(name)
        os.symlink(entry["to"], temporary, dir_fd=parent)
        try:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            os.unlink(temporary, dir_fd=parent)
            raise
        self.files += 1

    def _take_file(self, entry: Entry, hearing: BinaryIO, total: int) -> None:
        trouble: Optional[OSError] = None
        file: Optional[_NewFile] = None
        try:
            file = self._new_file(entry)
        except OSError as error:
            trouble = error
        whole = True
        try:
            for data in self._pieces(entry, hearing, total):
                whole = data is not None
                if file is None or trouble is not None or data is None:
                    continue  # what is sent has to be heard all the same
                try:
                    file.write(data)
                except OSError as error:
                    trouble = error
            if file is not None and trouble is None and whole:
                file.put(entry)
                self.files += 1
        except OSError as error:
            trouble = error
        finally:
            if file is not None:
                file.close()
        if trouble is not None:
            self._failed(entry["path"], trouble)
        elif not whole:
            self._fail(entry["path"], "it could not be read")

    def _pieces(self, entry: Entry, hearing: BinaryIO, total: int) -> Iterator[Optional[bytes]]:
        """A file's content; None at the end: the giver could not read it to its end."""
        while True:
            size = _SIZE.unpack(_exactly(hearing, _SIZE.size))[0]
            if size == _BROKEN:
                yield None
            if size in (0, _BROKEN):
                return
            if size > _PIECE:
                raise Refused("the other end sends pieces that are too large")
            data = _exactly(hearing, size)
            self.bytes += size
            self._progress(self.bytes, total, entry["path"])
            yield data

    def _new_file(self, entry: Entry) -> "_NewFile":
        parent, name = self._parent(entry["path"])
        if parent is None:
            raise OSError(errno.ENOENT, "its directory is gone")
        return _NewFile(parent, name)

    def _finish_directories(self, listed: List[Entry]) -> None:
        """Times and modes, when nothing is put into them any more: the innermost first."""
        for entry in reversed(listed):
            if entry["kind"] != "directory":
                continue
            try:
                descriptor = self._open(entry["path"].split("/"))
            except OSError:
                continue  # it has been told already
            try:
                os.fchmod(descriptor, entry["mode"] & 0o777 | 0o700)
                os.utime(descriptor, ns=(entry["time"], entry["time"]))
            except OSError as error:
                self._failed(entry["path"], error)
            finally:
                os.close(descriptor)

    def _parent(self, path: str) -> Tuple[Optional[int], str]:
        """The open directory that holds it; None: it is not there, because nothing is made in a dry run."""
        *above, name = path.split("/")
        try:
            return self._open(above), name
        except FileNotFoundError:
            if self._dry:
                return None, name
            raise

    def _open(self, parts: List[str]) -> int:
        """Step by step, so that a link is never followed."""
        here = os.dup(self._top)
        for part in parts:
            try:
                below = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here
                )
            finally:
                os.close(here)
            here = below
        return here

    def _change(self, how: str, entry: Entry) -> None:
        if len(self.changes) < _MOST_CHANGES:
            self.changes.append((how, entry["path"] + ("/" if entry["kind"] == "directory" else "")))

    def _failed(self, path: str, error: OSError) -> None:
        if error.errno in _FULL:
            self.fatal = "%s: %s" % (os.path.join(self._root, path), error.strerror)
        else:
            self._fail(path, error.strerror or str(error))

    def _fail(self, path: str, why: str) -> None:
        self.failures += 1
        if len(self.failed) < _MOST_TOLD:
            self.failed.append((path, why))

    def close(self) -> None:
        if self._top >= 0:
            os.close(self._top)
            self._top = -1


class _NewFile(object):
    """A file that gets its name when it is whole."""

    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._temporary = _temporary(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._temporary, flags, 0o600, dir_fd=parent)
        except OSError:
            os.close(parent)
            raise
        self._there = True

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def put(self, entry: Entry) -> None:
        os.fchmod(self._descriptor, entry["mode"] & 0o777)
        os.utime(self._descriptor, ns=(entry["time"], entry["time"]))
        os.rename(self._temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._there = False

    def close(self) -> None:
        os.close(self._descriptor)
        if self._there:
            os.unlink(self._temporary, dir_fd=self._parent)
        os.close(self._parent)


def check(entry: Entry, directories: Any) -> None:
    """Raises `Refused` for what no honest giver lists."""
    path, kind = entry.get("path"), entry.get("kind")
    if kind == "unreadable" and isinstance(path, str):
        return
    numbers = [entry.get(name) for name in ("size", "time", "mode")]
    if not isinstance(path, str) or not all(isinstance(one, int) for one in numbers) or numbers[0] < 0:  # type: ignore[operator]
        raise Refused("the other end lists what is no entry")
    if kind not in ("file", "directory", "link", "special"):
        raise Refused("the other end lists %r, whose kind is unknown" % path)
    if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
        raise Refused("the other end lists %r, which is no path below a directory" % path)
    if path.rpartition("/")[0] not in directories:
        raise Refused("the other end lists %r in what it does not call a directory" % path)
    if kind == "link" and (not isinstance(entry.get("to"), str) or not entry["to"] or "\0" in entry["to"]):
        raise Refused("the other end lists a link to nowhere")


def _lstat(name: str, parent: int) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _temporary(name: str) -> str:
    """In the same directory, and not longer than a name may be."""
    return ".%s.farkernel-%s" % (name[:100], os.urandom(6).hex())


def _seconds(times: Tuple[int, int]) -> bool:
    return times[0] // 10**9 == times[1] // 10**9


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise Refused("the other end stopped in the middle")
    return data


# -- as a program -----------------------------------------------------------------------------------------------


def _nothing(gone: int, total: int, path: str) -> None:
    """Nobody watches at this end."""


def main() -> int:
    hearing, saying = sys.stdin.buffer, sys.stdout.buffer
    # By an exception, so that no torn file is left behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    try:
        order = hear(hearing)
        path = os.path.join(os.path.expanduser("~"), os.path.expanduser(str(order["path"])))
        if order["role"] == "give":
            result = give(path, hearing, saying, _nothing, lambda: bool(select.select([0], [], [], 0)[0]))
        else:
            taker = Taker(path, bool(order.get("dry")), _nothing)
            result = taker.take(hearing, saying)
            if result["fatal"]:
                while hearing.read(_PIECE):  # the giver is told, and stops as soon as it looks
                    pass
    except Refused as error:
        say(saying, {"refused": str(error)})
        saying.flush()
        return 1
    return 1 if result.get("fatal") else 0


if __name__ == "__main__":
    sys.exit(main())
