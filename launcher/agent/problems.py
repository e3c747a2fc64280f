"""Errors that the agent answers with: what is wrong and what to do, in the three words of every error of ours."""

from typing import Dict, Iterable


class Problem(Exception):
    """Base; `as_dict` is what travels."""

    kind = "agent"

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return "%s. %s" % (self.what, self.advice) if self.advice else self.what

    def as_dict(self) -> Dict[str, str]:
        return {"kind": self.kind, "what": self.what, "advice": self.advice}


class BadRequest(Problem):
    """The keeper asked for something that makes no sense; it is newer than the agent, or mistaken."""

    kind = "bad-request"

    def __init__(self, what: str) -> None:
        super().__init__(what, "Keeper and agent may be of different versions: `farkernel keeper restart`")


class NoSuchKernel(Problem):
    kind = "no-kernel"

    def __init__(self, kernel: str) -> None:
        super().__init__(
            "the agent has no kernel %s" % kernel, "`farkernel ps --all` shows those that there are"
        )


class KernelEnded(Problem):
    kind = "ended"

    def __init__(self, wanted: str) -> None:
        super().__init__("the kernel has ended: it cannot %s" % wanted, "Start it again")


class StillRuns(Problem):
    kind = "running"

    def __init__(self, life: int) -> None:
        super().__init__("the kernel's life %d still runs" % life, "Stop it first")


class NoKernelspec(Problem):
    kind = "no-kernelspec"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        import difflib

        near = difflib.get_close_matches(name, names, 1, 0.5)
        if not names:
            advice = 'None is installed there; install one (ipykernel for Python), or give python = "/path/to/python"'
        else:
            advice = "There are: %s%s" % (", ".join(names), "; did you mean %s?" % near[0] if near else "")
        super().__init__("no kernelspec %r was found there" % name, advice)


class BadKernelspec(Problem):
    kind = "kernelspec"

    def __init__(self, path: str, why: str) -> None:
        super().__init__("the kernelspec %s cannot be used: %s" % (path, why), "Install that kernel again")


class NoProgram(Problem):
    kind = "no-program"

    def __init__(self, program: str, looked: str) -> None:
        super().__init__(
            "the kernel's program %s was not found there" % program,
            "It was looked for in %s; a full path, or modules, conda or before in the configuration, makes it found"
            % (looked or "an empty PATH"),
        )


class NoRoom(Problem):
    kind = "no-space"

    def __init__(self, directory: str, why: str) -> None:
        super().__init__(
            "the kernel's files could not be written in %s: %s" % (directory, why), "Free some space there"
        )


class PathTooLong(Problem):
    kind = "path"

    def __init__(self, path: str) -> None:
        super().__init__(
            "the sockets' path %s is too long for this system" % path,
            "Set FARKERNEL_RUN_DIR there to a shorter one",
        )
