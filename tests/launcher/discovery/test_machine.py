"""Reading a far end's document: it may send anything, and never raises."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.cli.schemas import SCHEMAS
from farkernel.launcher.discovery.machine import Gpu, Machine, PartProblem, RaspberryPi, read_machine

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)
NAMES = st.sampled_from([*Machine.__dataclass_fields__, *Gpu.__dataclass_fields__])


@given(JSON | st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON))))
def test_anything_is_read_and_fits_the_schema(document: Any) -> None:
    read = asdict(read_machine(document))
    jsonschema.validate(json.loads(json.dumps(read)), SCHEMAS["resources"]["items"]["properties"]["machine"])


def test_what_is_right_is_kept_and_what_is_wrong_is_absent() -> None:
    read = read_machine(
        {
            "version": "two",
            "load": [1, 2.5, "x"],
            "gpus": [{"name": "A", "use": 1, "temperature": True, "index": 1.5, "new": 1}, "no gpu", {}],
            "raspberrypi": {"throttled": []},
            "problems": [{"part": "nvidia", "what": "no answer"}],
        }
    )
    assert read.version == 1
    assert read.load == (1.0, 2.5)
    assert read.gpus == (Gpu(name="A", use=1.0), Gpu())
    assert read.raspberrypi == RaspberryPi(throttled=())
    assert read.problems == (PartProblem("nvidia", "no answer"),)
    assert read.jetson is None


def test_it_comes_through_json_unchanged() -> None:
    machine = read_machine({"gpus": [{"uuid": "GPU-1", "processes": [{"pid": 7}]}], "uptime": 3})
    assert read_machine(json.loads(json.dumps(asdict(machine)))) == machine
