"""Fork and exec of a kernel, in the guard: single-threaded, small, and nothing imported after the fork."""

import errno
import os
import resource
import signal
import struct
import time
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import procinfo, records

_ERROR = struct.Struct("=i")
LAUNCH = "launch.json"
_ENOUGH = 65536
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
if os.environ.get("FARKERNEL_JOB"):
    import ctypes

    _LIBC = ctypes.CDLL(None)
Spawned = NamedTuple("Spawned", [("pid", int), ("start", int), ("output", int)])


class SpawnFailed(Exception):
    """exec refused; the text is for people."""


def process_record(directory: str, life: int) -> str:
    """pid and start time of the process of one life: how a later agent knows its kernels again."""
    return os.path.join(directory, "process-%d.json" % life)


def exit_record(directory: str, life: int) -> str:
    """How it ended, written by the guard as soon as it is known."""
    return os.path.join(directory, "exit-%d.json" % life)


def spawn(directory: str, life: int, leases: Sequence[int] = ()) -> Spawned:
    """Start what launch.json says; returns pid, start time, and the reading end of its stdout and stderr.

    ``leases``: descriptors that the kernel keeps open, so that what is leased stays so as long as it lives.

    The child waits until its pid is on disk: there is never a kernel that nobody knows of.  Raises
    `SpawnFailed`.
    """
    path = os.path.join(directory, LAUNCH)
    launch = records.read(path)
    if launch is None:
        raise SpawnFailed("the launch record is gone")
    os.unlink(path)  # values of variables may be secrets: they stay no longer than needed
    output, its_output = os.pipe()
    go, its_go = os.pipe()
    failure, its_failure = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(its_go)
            for descriptor in leases:
                os.set_inheritable(descriptor, True)
            _become_kernel(
                launch["argv"], launch["program"], launch["env"], launch["cwd"], its_output, go, its_failure
            )
        except OSError as error:
            os.write(its_failure, _ERROR.pack(error.errno or errno.EIO))
        finally:
            os._exit(127)
    for descriptor in (its_output, go, its_failure):
        os.close(descriptor)
    start = procinfo.start_of(pid)
    try:
        facts = {"pid": pid, "start": start, "time": time.time()}
        records.write(process_record(directory, life), facts)
    except OSError as error:
        os.close(its_go)  # without the word the child ends
        os.close(output)
        os.close(failure)
        os.waitpid(pid, 0)
        raise SpawnFailed("its record could not be written: %s" % error.strerror) from None
    os.write(its_go, b"1")
    os.close(its_go)
    said = os.read(failure, _ERROR.size)
    os.close(failure)
    if said:
        os.close(output)
        os.waitpid(pid, 0)
        raise SpawnFailed("%s: %s" % (launch["program"], os.strerror(_ERROR.unpack(said)[0])))
    return Spawned(pid, start, output)


def _become_kernel(
    argv: List[str], program: str, environment: Dict[str, str], cwd: str, output: int, go: int, failure: int
) -> None:
    """In the child.  The failure pipe is closed by a successful exec."""
    if os.read(go, 1) != b"1":
        os._exit(127)
    os.setsid()
    if os.environ.get("FARKERNEL_JOB"):
        # Some schedulers end a job by ending the process group of its script, in which we are and the kernel is not.
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    os.umask(int(os.environ.get("FARKERNEL_UMASK", "022"), 8))
    # What we or the keeper's route ignore (nohup: SIGHUP), or Python (SIGPIPE), the kernel must not.
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # taken by the C library
    if _Limit.before is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, _Limit.before)
    os.chdir(cwd)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execve(program, argv, environment)


class _Limit(object):
    """How many descriptors the user's processes may have: we take more, kernels get what was set for them."""

    before: Optional[Tuple[int, int]] = None


def raise_limit() -> None:
    """Nine descriptors for each kernel in either process soon pass the usual 1024."""
    soft, hard = _Limit.before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > _ENOUGH:
        hard = _ENOUGH
    if soft == resource.RLIM_INFINITY or soft >= hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, _Limit.before[1]))
    except (ValueError, OSError):
        pass  # then as many kernels as the limit allows


def wait_all() -> List[Tuple[int, int]]:
    """(pid, status) of every child that has ended."""
    ended: List[Tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.append((pid, status))
