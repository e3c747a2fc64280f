"""What a kernel's surroundings said when they could not be had: words in a file, made sentences here."""

import os
import re
from typing import Callable, Dict, Iterable, List, Optional

from .problems import Problem
from .reasons import clean

#: In the kernel's directory; strings with NUL after each, the first is the kind.
FAILED = "failed"
SAID = "said"
_LARGEST = 1 << 16


class NoConda(Problem):
    kind = "no-conda"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = ", ".join(known)
        super().__init__(
            "no conda environment %r was found there" % name,
            "There are: %s" % names if names else "None was found at all; a full path makes one found",
        )


class BadModuleName(Problem):
    kind = "module-name"

    def __init__(self, name: str) -> None:
        super().__init__(
            "%r cannot be the name of a module" % name[:100],
            "See modules in the target's configuration; shell lines go into before",
        )


class NoModules(Problem):
    kind = "no-modules"

    def __init__(self) -> None:
        super().__init__(
            "there are no environment modules there (no command `module`)",
            "Take modules out of the target's configuration, or make `module` known in before",
        )


class NoModule(Problem):
    kind = "no-module"

    def __init__(self, name: str, said: str, known: str) -> None:
        names = [line.strip() for line in known.splitlines() if _MODULE.match(line.strip())]
        advice = (
            "There are: %s" % ", ".join(names) if names else "`module avail` there shows those that there are"
        )
        super().__init__("the module %s could not be loaded%s" % (name, _because(said)), advice)


class NoRuntime(Problem):
    kind = "no-runtime"

    def __init__(self, image: str, tried: str) -> None:
        super().__init__(
            "nothing that could run the container %s was found there (tried: %s)" % (image, tried),
            "Install one of them, or name the module that brings it in modules",
        )


class NoImage(Problem):
    kind = "no-image"

    def __init__(self, image: str, runtime: str, said: str) -> None:
        if runtime:
            what = "%s cannot get the container image %s%s" % (runtime, image, _because(said))
        else:
            what = "the container image %s is not there" % image
        super().__init__(what, "See that `container` in the target's configuration is right")


class NoPythonInside(Problem):
    kind = "no-python"

    def __init__(self, name: str) -> None:
        super().__init__(
            "no Python was found where the kernel %s should run, to look for its kernelspec with" % name,
            'Give python = "/path/to/python" or another image in the target\'s configuration',
        )


class NoKernelspecThere(Problem):
    kind = "no-kernelspec"

    def __init__(self, name: str, known: str) -> None:
        super().__init__(
            "no kernelspec %r was found in the kernel's surroundings" % name,
            "There are: %s" % known if known else "None is installed there",
        )


_KINDS: Dict[str, Callable[..., Problem]] = {
    "conda": lambda name, known: NoConda(name, [known] if known else []),
    "no-modules": NoModules,
    "module": NoModule,
    "runtime": NoRuntime,
    "image": NoImage,
    "python": NoPythonInside,
    "kernelspec": NoKernelspecThere,
}
_MODULE = re.compile(r"[A-Za-z0-9][^\s:]*[^\s:/]\Z")


def read(directory: str) -> Optional[Problem]:
    """What is in the file; None: nothing was refused."""
    try:
        with open(os.path.join(directory, FAILED), encoding="utf-8", errors="replace") as stream:
            words = stream.read(_LARGEST).split("\0")[:-1]
    except OSError:
        return None
    words = [clean(word) for word in words]
    make = _KINDS.get(words[0]) if words else None
    if make is None:
        return None
    try:
        return make(*words[1:])
    except TypeError:
        return None  # half written


def forget(directory: str) -> None:
    """A new life begins."""
    for name in (FAILED, SAID):
        try:
            os.unlink(os.path.join(directory, name))
        except OSError:
            pass


def _because(said: str) -> str:
    """The line that says most: the last that is more than a number or a hint, without its decoration."""
    lines: List[str] = [" ".join(line.split()) for line in said.splitlines()]
    lines = [
        line
        for line in lines
        if line and not line.startswith(("Also make sure", "Please check", "Try:", "$"))
    ]
    told = next((line for line in lines if re.search(r"(?i)error|unknown|unable|cannot|no such", line)), "")
    if told.endswith(":") or told.endswith("error"):
        told = " ".join(lines[lines.index(told) :][:2])
    told = told or (lines[-1] if lines else "")
    return ": %s" % told[:300] if told else ""
