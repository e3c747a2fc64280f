"""The arguments of a magic, read as its usage line says: the line that people see is the one that is obeyed.

``[--flag]``  ``[-r|--recursive]``  ``[--option VALUE]``  ``NAME``  ``[NAME]``  ``NAME…``  ``[NAME…]``; a name that
ends in ``TEXT`` takes the rest of the line as it stands.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import MagicUsage

_ITEM = re.compile(r"\[(-[^\]\s]+)(?: ([A-Z]+))?\]|(\[)?([A-Z]+)(…)?(\])?")


@dataclass(frozen=True)
class Option:
    names: tuple[str, ...]
    value: str = ""  # the name of its value; empty: a flag


@dataclass(frozen=True)
class Place:
    name: str
    optional: bool
    many: bool


@dataclass(frozen=True)
class Usage:
    """A usage line, taken apart."""

    text: str
    options: tuple[Option, ...]
    places: tuple[Place, ...]

    @classmethod
    def of(cls, text: str) -> Usage:
        options, places = [], []
        for names, value, opened, place, many, _ in _ITEM.findall(text):
            if names:
                options.append(Option(tuple(names.split("|")), value))
            else:
                places.append(Place(place, bool(opened), bool(many)))
        return cls(text, tuple(options), tuple(places))


@dataclass(frozen=True)
class Arguments:
    """What was given; options by their last name."""

    words: Mapping[str, list[str]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    line: int = 1  # of the body in the cell

    def flag(self, name: str) -> bool:
        return name in self.options

    def option(self, name: str, default: str = "") -> str:
        return self.options.get(name, default)

    def one(self, name: str, default: str = "") -> str:
        return self.words[name][0] if self.words.get(name) else default

    def many(self, name: str) -> list[str]:
        return self.words.get(name, [])


def read(name: str, usage: Usage, text: str, body: str | None = None, line: int = 1) -> Arguments:
    """Raises `MagicUsage`."""
    last = usage.places[-1] if usage.places else None
    if last is not None and last.name.endswith("TEXT") and len(usage.places) == 1 and not usage.options:
        if not text and not last.optional:
            raise MagicUsage(f"%{name} needs {last.name}", name, usage.text)
        return Arguments({last.name: [text] if text else []}, {}, body, line)
    try:
        words = shlex.split(text)
    except ValueError:
        raise MagicUsage("a quotation mark is not closed", name, usage.text) from None
    options, plain = _options(name, usage, words)
    return Arguments(_places(name, usage, plain), options, body, line)


def _options(name: str, usage: Usage, words: list[str]) -> tuple[dict[str, str], list[str]]:
    known = {each: option for option in usage.options for each in option.names}
    given: dict[str, str] = {}
    plain: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            plain += rest
        elif not word.startswith("-") or len(word) == 1 or word[1].isdigit():
            plain.append(word)
        else:
            flag, equals, value = word.partition("=")
            option = known.get(flag)
            if option is None:
                near = difflib.get_close_matches(flag, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise MagicUsage(f"%{name} knows no {flag}{hint}", name, usage.text)
            if option.value and not equals:
                value = next(rest, "")
            if bool(option.value) != bool(value):
                problem = f"{flag} needs {option.value}" if option.value else f"{flag} takes no value"
                raise MagicUsage(problem, name, usage.text)
            given[option.names[-1]] = value
    return given, plain


def _places(name: str, usage: Usage, words: list[str]) -> dict[str, list[str]]:
    """Each place gets its words: one each, and what is over goes to the place that takes many."""
    needed = sum(not place.optional for place in usage.places)
    if len(words) < needed:
        missing = [place.name for place in usage.places if not place.optional][len(words)]
        raise MagicUsage(f"%{name} needs {missing}", name, usage.text)
    spare = len(words) - needed
    found: dict[str, list[str]] = {}
    rest = list(words)
    for place in usage.places:
        size = 0 if place.optional else 1
        if place.optional and not place.many and spare:
            size, spare = 1, spare - 1
        elif place.many:
            size, spare = size + spare, 0
        found[place.name], rest = rest[:size], rest[size:]
    if rest:
        raise MagicUsage(f"%{name} does not know what to do with {rest[0]!r}", name, usage.text)
    return found
