"""From what a scan found at a target to what can be put into the menu: each kernel that would start there."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..launcher.errors import FarkernelError
from ..launcher.text import one_line

_LANGUAGES = {"python": "Python", "julia": "Julia"}
_MANAGERS = frozenset({"conda", "pixi"})  # environments that are activated, not merely run


class Offer(NamedTuple):
    """One kernel there, as a menu entry would have it."""

    name: str
    display_name: str
    language: str
    path: str
    settings: dict[str, Any]


class NoSuchOffer(FarkernelError):
    kind = "no-such-kernel-there"

    def __init__(self, target: str, wanted: str, names: Iterable[str]) -> None:
        known = sorted(set(names))
        near = difflib.get_close_matches(wanted, known, n=1)
        advice = f"There are: {', '.join(known)}" if known else "None was found at all"
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(
            f"{target} has no kernel and no environment with a kernel that is called {one_line(wanted)[:100]!r}",
            f"{advice}{hint}. --no-scan takes the name of a kernelspec as it is",
        )


class NoKernelInIt(FarkernelError):
    kind = "no-kernel-in-it"

    def __init__(self, path: str, language: str, program: str) -> None:
        how = {
            "python": f"{one_line(program)} -m pip install ipykernel",
            "R": "install.packages('IRkernel') in R",
            "julia": 'using Pkg; Pkg.add("IJulia") in Julia',
        }.get(language, "")
        super().__init__(f"the environment {one_line(path)} has no kernel in it", f"Install one there: {how}")


def offers(found: Mapping[str, Any]) -> list[Offer]:
    """Kernelspecs first; an environment whose kernel a kernelspec of its own shows already is not said twice."""
    specs = [_of_kernelspec(row) for row in _rows(found, "kernelspecs")]
    shown = [(offer.path, offer.language) for offer in specs]
    environments = [
        offer_of_environment(row)
        for row in _rows(found, "environments")
        if row.get("kernel") and not any(_shows(row, path, language) for path, language in shown)
    ]
    return _distinct(specs + environments)


def pick(target: str, found: Mapping[str, Any], wanted: str) -> Offer:
    """By name, or by the path of the environment or of its program.

    Raises `NoSuchOffer`, and `NoKernelInIt` where the environment is there and its kernel is not.
    """
    known = offers(found)
    for offer in known:
        if wanted == offer.name or wanted.rstrip("/") == offer.path.rstrip("/"):
            return offer
    for row in _rows(found, "environments"):
        if wanted.rstrip("/") in (row.get("path"), row.get("program"), row.get("name")):
            if not row.get("kernel"):
                raise NoKernelInIt(str(row.get("path")), str(row.get("language")), str(row.get("program")))
            return offer_of_environment(row)
    raise NoSuchOffer(target, wanted, (offer.name for offer in known))


def offer_of_environment(row: Mapping[str, Any]) -> Offer:
    language, path = str(row.get("language", "")), str(row.get("path", ""))
    name = str(row.get("name") or os.path.basename(path))
    settings: dict[str, Any] = {}
    if row.get("kind") in _MANAGERS:
        settings["conda"] = path
    if isinstance(row.get("argv"), list):
        settings["argv"] = [str(word) for word in row["argv"]]
    elif not settings:
        settings["python"] = str(row.get("program"))
    shown = " ".join(
        each for each in (_LANGUAGES.get(language, language), _short(row.get("version"))) if each
    )
    return Offer(_clean_name(name), f"{shown} ({one_line(name)})", language, path, settings)


def _of_kernelspec(row: Mapping[str, Any]) -> Offer:
    name = str(row.get("name", ""))
    display_name = one_line(row.get("display_name") or name)
    return Offer(name, display_name, str(row.get("language", "")), str(row.get("path", "")), {"kernel": name})


def _shows(row: Mapping[str, Any], path: str, language: str) -> bool:
    """Whether the kernelspec at that path is the environment's own."""
    return path.startswith(f"{row.get('path')}/share/jupyter/") and language == row.get("language")


def _rows(found: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    rows = found.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _short(version: object) -> str:
    return ".".join(str(version or "").split(".")[:2])


def _clean_name(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:60] or "kernel"


def _distinct(found: list[Offer]) -> list[Offer]:
    """Of several with one name the later ones get a number."""
    taken: set[str] = set()
    result = []
    for offer in found:
        name, number = offer.name, 1
        while name in taken:
            number += 1
            name = f"{offer.name}-{number}"
        taken.add(name)
        result.append(offer._replace(name=name))
    return result
