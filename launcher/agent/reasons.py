"""Why a kernel ended, in one sentence for people (docs/architecture.md §4, `reason`)."""

import errno
import os
import re
import signal
from typing import Any, Dict, Optional

from .procinfo import MemoryGroup

TAIL_LINES = 20
# CSI and OSC sequences, other escapes, and control characters but tab and newline: what a kernel wrote must
# not reach a terminal as anything but text.
_ESCAPES = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\].*?(?:\x07|\x1b\\\\)|\x1b[@-Z\\\\-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]", re.S
)


def reason(
    kind: str, text: str, status: Optional[int] = None, signum: Optional[int] = None, tail: str = ""
) -> Dict[str, Any]:
    return {"kind": kind, "status": status, "signum": signum, "text": text, "tail": tail}


def of_exit(wait_status: int, wanted: Optional[str], oom: Optional[MemoryGroup], tail: str) -> Dict[str, Any]:
    """From the status of waitpid.  `wanted`: why we ended it ("stopped", "keep", or None); `oom`: the cgroup,
    if the system killed in it for want of memory."""
    if os.WIFSIGNALED(wait_status):
        signum = os.WTERMSIG(wait_status)
        if wanted is None and signum == signal.SIGKILL and oom is not None:
            return reason("oom", _oom_text(oom), None, signum, tail)
        text, kind, status = _signal_text(signum), "signal", None
    else:
        signum, status = None, os.WEXITSTATUS(wait_status)
        text, kind = _exit_text(status, tail), "exit"
    if wanted is not None:
        text, kind = WANTED[wanted], wanted
    return reason(kind, text, status, signum, tail)


WANTED = {
    "stopped": "It was stopped on request.",
    "keep": "It was ended because no keeper came back within the time that it was to be kept.",
}
UNKNOWN = "It ended while nobody watched: the agent had been ended or started again, so its exit status is not known."
LOST_START = "It was never started: the agent was ended at that moment. Start it again."


def _exit_text(status: int, tail: str) -> str:
    if status and re.search(r"\[Errno (%d|%d)\]" % (errno.ENOSPC, errno.EDQUOT), tail):
        return "It exited with status %d: a disk or a quota there is full. Make room in its home." % status
    if "No module named ipykernel" in tail:
        return "It could not start: that Python has no ipykernel. Install it there: python -m pip install ipykernel"
    if status == 0:
        return "It exited by itself (status 0)."
    if status == 127:
        return "It exited with status 127: a command was not found. The lines below say which."
    return "It exited with status %d.%s" % (
        status,
        " The last lines that it printed say more." if tail else "",
    )


def _signal_text(signum: int) -> str:
    try:
        name = signal.Signals(signum).name
    except ValueError:
        name = "signal %d" % signum
    told: Dict[int, str] = {
        signal.SIGSEGV: "It crashed (SIGSEGV: an invalid memory access, usually in a library written in C).",
        signal.SIGKILL: "It was killed (SIGKILL) from outside: by somebody, by the batch system, for want of memory.",
        signal.SIGTERM: "It was ended (SIGTERM) from outside: by somebody or by the system.",
        signal.SIGXCPU: "It was ended (SIGXCPU): its limit of CPU time was used up.",
    }
    return told.get(signum, "It was ended by %s." % name)


def _oom_text(group: MemoryGroup) -> str:
    limit, peak = group.limit(), group.peak()
    figures = []
    if limit is not None:
        figures.append("the limit is %s" % megabytes(limit))
    if peak is not None:
        figures.append("the peak was %s" % megabytes(peak))
    return "Out of memory: the system killed it%s. Ask for more memory, or use less." % (
        " (%s)" % ", ".join(figures) if figures else ""
    )


def megabytes(size: int) -> str:
    return "%.1f GiB" % (size / 2.0**30) if size >= 1 << 30 else "%d MiB" % (size >> 20)


def clean(text: str) -> str:
    return _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def last_lines(content: bytes, count: int = TAIL_LINES) -> str:
    """The end of what a kernel wrote, harmless for a terminal."""
    lines = clean(content.decode("utf-8", "replace")).rstrip().split("\n")
    return "\n".join(line[:500] for line in lines[-count:]).strip("\n")
