"""Documents that come from a far end as typed objects: whatever was sent, what has the wrong type is absent."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

_MOST = 10_000
_LONGEST = 64 * 1024

Kind = TypeVar("Kind")


def read(kind: type[Kind], document: Any) -> Kind:
    """An object of that dataclass; never raises."""
    found = _read(kind, document)
    assert isinstance(found, kind)
    return found


def _read(kind: Any, value: Any) -> Any:
    """The value if it is of that kind; None, or what a dataclass has by itself, if it is not."""
    if is_dataclass(kind):
        return _read_fields(kind, value)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _read(inner[0], value)
    if origin is tuple:
        return tuple(_each(inner[0], value[:_MOST])) if isinstance(value, list) else None
    if kind is str:
        return value[:_LONGEST] if isinstance(value, str) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 63
    if kind is float:
        return float(value) if is_number else None
    return value if is_number and isinstance(value, int) else None


def _each(kind: Any, values: list[Any]) -> typing.Iterator[Any]:
    for value in values:
        if is_dataclass(kind) and not isinstance(value, dict):
            continue
        read = _read(kind, value)
        if read is not None:
            yield read


def _read_fields(kind: Any, value: Any) -> Any:
    hints = typing.get_type_hints(kind)
    found = {}
    for field in fields(kind):
        if isinstance(value, dict) and field.name in value:
            read = _read(hints[field.name], value[field.name])
            if read is not None:
                found[field.name] = read
    return kind(**found)
