"""What `--json` gives, as JSON Schemas: a contract for programs that read it.  The tests hold the commands to it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..discovery.cluster import Cluster
from ..discovery.machine import Machine

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_WHOLE: Schema = {"type": "integer"}
_TRUTH: Schema = {"type": "boolean"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(optional: dict[str, Schema] | None = None, **required: Schema) -> Schema:
    """More keys may come in later versions; those that are named stay."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": sorted(required)}


_REASON = _or_null(
    _object({"status": _or_null(_WHOLE), "signum": _or_null(_WHOLE), "tail": _TEXT}, kind=_TEXT, text=_TEXT)
)
_USAGE = _or_null(_object(memory=_NUMBER))
_KERNEL = _object(
    {
        "devices": _list(_object(uuid=_TEXT)),
        "answers": {"type": "object"},
        "why": _TEXT,
        "usage": _USAGE,
        "fronts": _WHOLE,
        "notebook": _TEXT,
        "created": _NUMBER,
        "life": _WHOLE,
    },
    kernel=_TEXT,
    entry=_TEXT,
    target=_TEXT,
    allocation=_TEXT,
    state={"enum": ["waiting", "starting", "live", "ended"]},
    reason=_REASON,
    since=_NUMBER,
)
_ALLOCATION = _object(allocation=_TEXT, link=_TEXT, why=_TEXT, kernels=_list(_TEXT))
_REACH = _or_null(_object(ok=_TRUTH, what=_TEXT, advice=_TEXT))


def _of(kind: Any) -> Schema:
    """The schema of a dataclass of `launcher.discovery`, where each field is explained."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return _object(**{field.name: _of(hints[field.name]) for field in fields(kind)})
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _or_null(_of(inner[0]))
    if origin is tuple:
        return _list(_of(inner[0]))
    return {str: _TEXT, bool: _TRUTH, int: _WHOLE, float: _NUMBER}[kind]


_MACHINE, _CLUSTER = _of(Machine), _of(Cluster)

SCHEMAS: dict[str, Schema] = {
    "add": _object(target=_TEXT, settings={"type": "object"}, file=_TEXT),
    "list": _list(
        _object(
            target=_TEXT,
            address=_TEXT,
            kernel=_or_null(_TEXT),
            presets=_list(_TEXT),
            entries=_list(_TEXT),
            reach=_REACH,
        )
    ),
    "remove": _object(target=_TEXT, file=_TEXT, entries=_list(_TEXT)),
    "scan": _object(
        target=_TEXT,
        kernelspecs=_list(_object(name=_TEXT, display_name=_TEXT, language=_TEXT, path=_TEXT)),
        environments=_list(
            _object(
                kind=_TEXT,
                language=_TEXT,
                name=_TEXT,
                version=_TEXT,
                path=_TEXT,
                program=_TEXT,
                kernel=_TRUTH,
            )
        ),
        modules=_list(_TEXT),
        complete=_TRUTH,
    ),
    "login": _object(target=_TEXT, address=_TEXT, node=_TEXT),
    "resources": _list(
        _object(
            target=_TEXT,
            address=_TEXT,
            ok=_TRUTH,
            what=_TEXT,
            advice=_TEXT,
            machine=_or_null(_MACHINE),
            cluster=_or_null(_CLUSTER),
            queue=_or_null(_TEXT),
        )
    ),
    "install": _object(entry=_TEXT, directory=_TEXT, spec={"type": "object"}),
    "install --all": _list(_object(entry=_TEXT, directory=_TEXT, spec={"type": "object"})),
    "sync": _object(
        target=_TEXT,
        local=_TEXT,
        far=_TEXT,
        **{"from": _TRUTH},
        dry_run=_TRUTH,
        method={"enum": ["rsync", "own"]},
        files=_WHOLE,
        bytes=_WHOLE,
        changes=_list(_object(how={"enum": ["new", "changed"]}, path=_TEXT)),
        failed=_list(_object(path=_TEXT, why=_TEXT)),
    ),
    "uninstall": _object(entry=_TEXT, directories=_list(_TEXT)),
    "ps": _object(kernels=_list(_KERNEL), allocations=_list(_ALLOCATION)),
    "stop": _object(kernel=_TEXT),
    "interrupt": _object(kernel=_TEXT),
    "logs": _object(kernel=_TEXT, log=_TEXT),
    "output": _object(
        kernel=_TEXT,
        dropped=_WHOLE,
        cells=_list(_object(msg_id=_TEXT, cell=_or_null(_TEXT), time=_NUMBER, line=_TEXT)),
        messages=_list(
            _object(
                number=_WHOLE,
                time=_NUMBER,
                msg_type=_TEXT,
                parent=_TEXT,
                content={"type": "object"},
                buffers=_WHOLE,
            )
        ),
    ),
    "output --into": _object(
        kernel=_TEXT,
        notebook=_TEXT,
        written=_TRUTH,
        cells=_WHOLE,
        dropped=_WHOLE,
        homeless=_list(_object(time=_NUMBER, line=_TEXT, outputs=_WHOLE)),
    ),
    "forward": _object({"path": _TEXT}, kernel=_TEXT, port=_or_null(_WHOLE), host=_TEXT, local=_WHOLE),
    "release": _object(allocation=_TEXT),
    "doctor": _object(
        target=_TEXT,
        ok=_TRUTH,
        steps=_list(
            _object(step=_TEXT, state={"enum": ["ok", "failed", "skipped"]}, what=_TEXT, advice=_TEXT)
        ),
    ),
    **dict.fromkeys(
        ("fleet diff", "fleet apply", "fleet remove"),
        _object(
            fleet=_TEXT,
            changes=_list(
                _object(
                    how={"enum": ["add", "change", "remove"]},
                    kind=_TEXT,
                    name=_TEXT,
                    detail=_TEXT,
                    place=_TEXT,
                )
            ),
        ),
    ),
    "fleet status": _list(
        _object(
            fleet=_TEXT,
            host=_TEXT,
            student=_TEXT,
            model=_or_null(_TEXT),
            state={"enum": ["up", "hot", "throttled", "down"]},
            ok=_TRUTH,
            what=_TEXT,
            advice=_TEXT,
            temperature=_or_null(_NUMBER),
            throttled=_or_null(_list(_TEXT)),
            throttled_before=_or_null(_list(_TEXT)),
            uptime=_or_null(_NUMBER),
            load=_list(_NUMBER),
            memory=_object(total=_or_null(_WHOLE), available=_or_null(_WHOLE)),
            users=_list(_TEXT),
            kernels=_list(_object({"notebook": _or_null(_TEXT)}, kernel=_TEXT, entry=_TEXT, state=_TEXT)),
        )
    ),
    "fleet reset": _list(
        _object(
            {"what": _TEXT, "advice": _TEXT},
            host=_TEXT,
            ok=_TRUTH,
            ended=_WHOLE,
            directory=_or_null(_TEXT),
            restarted=_TRUTH,
        )
    ),
    "keeper status": _object(
        {
            "pid": _WHOLE,
            "version": _TEXT,
            "since": _NUMBER,
            "kernels": _WHOLE,
            "allocations": _list(_ALLOCATION),
        },
        running=_TRUTH,
    ),
    "keeper stop": _object(stopped=_TRUTH),
}
