"""`farkernel sync`: copy files to a target, or from there."""

from __future__ import annotations

import argparse
import os
import posixpath
import shutil
import sys
import time
from typing import Any, NamedTuple

from .. import configuration
from ..configuration import Target
from ..errors import FarkernelError
from ..text import one_line
from . import copying_over, rsync
from .arguments import add_json
from .asking import Asking
from .output import emit, say
from .table import size


class NoSuchPath(FarkernelError):
    kind = "no-such-path"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"there is no {one_line(path)[:200]} on this machine", "See whether it is spelled right"
        )


class BadRemotePath(FarkernelError):
    kind = "usage"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{one_line(path)[:200]!r} cannot be a path at the far end",
            "Give a full path, one that begins with ~/, or one that is relative to the home there",
        )


class NotCopied(FarkernelError):
    kind = "not-copied"

    def __init__(self, count: int, failed: list[tuple[str, str]]) -> None:
        shown = "; ".join(f"{one_line(path)}: {one_line(why)}" for path, why in failed[:5])
        more = f" and {count - 5} more" if count > 5 else ""
        super().__init__(
            f"{count} file{'s' * (count > 1)} could not be copied ({shown}{more})",
            "All others were; see to those, and run it again",
        )


class Job(NamedTuple):
    """What is to be copied."""

    target: Target
    local: str
    far: str
    back: bool  # from the target
    dry: bool


class Copied(NamedTuple):
    """What came of it."""

    method: str
    files: int
    bytes: int
    changes: list[tuple[str, str]]  # how, path
    failures: int
    failed: list[tuple[str, str]]


def configure_sync(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copy a file or a directory to a target, or from there: what is there already and unchanged is left alone, and "
        "nothing is deleted.  By rsync where both ends have it, else by a program of ours; the keeper's connection is "
        "used in either case."
    )
    parser.add_argument("name", metavar="NAME", help="a target")
    parser.add_argument("path", metavar="PATH", help="a file or a directory on this machine")
    parser.add_argument(
        "remote",
        metavar="REMOTE",
        nargs="?",
        help="the same one there; without it, PATH's own name in the target's `cwd` or home",
    )
    parser.add_argument("--from", dest="back", action="store_true", help="from the target to this machine")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be copied")
    parser.add_argument("--no-rsync", action="store_true", help="copy by our own program also where rsync is")
    add_json(parser)


def run_sync(arguments: argparse.Namespace) -> int:
    target = configuration.load().target(arguments.name)
    local = os.path.abspath(os.path.expanduser(arguments.path))
    if not arguments.back and not os.path.exists(local):
        raise NoSuchPath(arguments.path)
    far = far_path(target, local, arguments.remote)
    if arguments.path.endswith("/") and arguments.back:
        local += "/"
    job = Job(target, local, far, arguments.back, arguments.dry_run)
    began = time.monotonic()
    with Asking() as client:
        copied = _copy(client, job, not arguments.no_rsync)
    _tell(arguments, job, copied, time.monotonic() - began)
    if copied.failures:
        raise NotCopied(copied.failures, copied.failed)
    return 0


def far_path(target: Target, local: str, given: str | None) -> str:
    """Full, or relative to the home there; raises `BadRemotePath`."""
    path = given if given is not None else posixpath.join(target.cwd or "", os.path.basename(local))
    if not path or "\0" in path or not path.isprintable():
        raise BadRemotePath(path)
    if path == "~":
        return "."
    if path.startswith("~/"):
        path = path[2:].lstrip("/") or "."
    elif path.startswith("~"):
        raise BadRemotePath(path)
    return path


def _copy(client: Asking, job: Job, with_rsync: bool) -> Copied:
    # What would be copied is told by our own program: rsync wants the directory above to be there.
    if with_rsync and not job.dry and shutil.which("rsync") and rsync.is_there(client, job.target.name):
        return Copied("rsync", *rsync.copy(client, job.target.name, job.local, job.far, job.back), [], 0, [])
    result = copying_over.copy(client, job.target.name, job.local, job.far, job.back, job.dry)
    changes = [(str(how), str(path)) for how, path in result["changes"]]
    failed = [(str(path), str(why)) for path, why in result["failed"]]
    return Copied("own", result["files"], result["bytes"], changes, result["failures"], failed)


def _tell(arguments: argparse.Namespace, job: Job, copied: Copied, took: float) -> None:
    if arguments.json:
        emit(_as_dict(job, copied))
        return
    if job.dry:
        for how, path in copied.changes:
            print(f"{how:<7}  {one_line(path)}")
        count = len(copied.changes)
        say(f"{count} would be copied." if count else "Nothing would be copied: all is the same.")
        return
    where = f"{job.target.name}:{one_line(job.far)}"
    way = f"{where} → {one_line(job.local)}" if job.back else f"{one_line(job.local)} → {where}"
    if not copied.files and not copied.failures:
        say(f"{way}: all is the same.")
        return
    rate = f", {size(int(copied.bytes / took))}/s" if copied.bytes > 1 << 20 and took > 0 else ""
    files = f"{copied.files} file{'s' * (copied.files != 1)}"
    say(f"{way}: {files}, {size(copied.bytes)} in {took:.1f} s{rate}.")
    sys.stdout.flush()


def _as_dict(job: Job, copied: Copied) -> dict[str, Any]:
    return {
        "target": job.target.name,
        "local": job.local,
        "far": job.far,
        "from": job.back,
        "dry_run": job.dry,
        "method": copied.method,
        "files": copied.files,
        "bytes": copied.bytes,
        "changes": [{"how": how, "path": path} for how, path in copied.changes],
        "failed": [{"path": path, "why": why} for path, why in copied.failed],
    }
