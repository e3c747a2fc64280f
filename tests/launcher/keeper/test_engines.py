"""What the keeper makes of an engine: its secrets, its words, and whatever it is sent."""

from __future__ import annotations

import asyncio

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.address import parse_address
from farkernel.launcher.cli.kernels import kernel_cells
from farkernel.launcher.keeper import engines
from farkernel.launcher.settings import Resources, Target

GOOD_NODE = {"node": "n2", "state": "up", "text": ""}
GOOD = {
    "kind": "dask",
    "title": "Dask",
    "connects": "Client()",
    "state": "ready",
    "text": "",
    "advice": "",
    "address": "tls://10.0.0.1:1",
    "dashboard": {"port": 8787, "path": "/status"},
    "nodes": [{"node": "n2", "state": "up", "text": ""}, {"node": "n3", "state": "up", "text": ""}],
    "socket": "/run/e/socket",
}


def target(address: str, **settings: object) -> Target:
    return Target("lab", parse_address(address), **settings)  # type: ignore[arg-type]


def test_nothing_is_asked_without_a_cluster() -> None:
    assert asyncio.run(engines.wanted(target("slurm:///p", resources=Resources(nodes=3)))) == {}


def test_a_board_has_no_engine() -> None:
    assert asyncio.run(engines.wanted(target("serial:///dev/ttyUSB0", cluster="dask"))) == {}


def test_what_is_asked_of_a_job() -> None:
    lab = target(
        "slurm:///p", cluster="dask", resources=Resources(nodes=3), env={"A": "$(b)"}, engine_hosts=("x",)
    )
    cluster = asyncio.run(engines.wanted(lab))["cluster"]
    secrets = cluster.pop("secrets")
    assert cluster == {
        "kind": "dask",
        "nodes": 3,
        "launcher": "slurm",
        "hosts": [],
        "environment": {"A": "$(b)"},
        "container": False,
    }
    x509.load_pem_x509_certificate(secrets["certificate"].encode())
    assert secrets["key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert secrets != asyncio.run(engines.wanted(lab))["cluster"]["secrets"]


def test_what_is_asked_of_hosts() -> None:
    cluster = asyncio.run(engines.wanted(target("ssh://pi1", cluster="dask", engine_hosts=("pi2", "pi3"))))[
        "cluster"
    ]
    assert (cluster["nodes"], cluster["launcher"], cluster["hosts"]) == (3, "ssh", ["pi2", "pi3"])


def test_the_sentences() -> None:
    engine = engines.read(GOOD)
    assert engines.sentence(engine) == "Dask runs on n2, n3: Client() connects to it."
    engine["url"] = "http://127.0.0.1:8787/status"
    assert engines.sentence(engine).endswith("to it. Dashboard: http://127.0.0.1:8787/status")
    lacking = engines.read(
        {**GOOD, "state": "degraded", "text": "Dask has 1 of 2 nodes (x: y)", "advice": "Restart it"}
    )
    assert engines.sentence(lacking) == "Dask has 1 of 2 nodes (x: y). Restart it. Client() connects to it."
    failed = engines.read(
        {**GOOD, "state": "failed", "text": "Dask is not installed", "advice": "Install it"}
    )
    assert engines.sentence(failed) == "Dask is not installed. Install it. The kernel runs without it."
    many = engines.read({**GOOD, "nodes": [{"node": f"n{n}", "state": "up"} for n in range(7)]})
    assert "runs on n0, n1, n2, n3 and 3 more: " in engines.sentence(many)


@pytest.mark.parametrize(
    "said", [None, 7, [], {}, {"nodes": 3, "dashboard": {"port": "x"}}, {"state": ["ready"]}]
)
def test_nonsense_is_a_failure(said: object) -> None:
    engine = engines.read(said)
    assert (engine["state"], engine["nodes"], engine["dashboard"]) == ("failed", [], None)
    assert engines.sentence(engine)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, JSON)))
def test_whatever_is_sent_can_be_shown(said: dict[str, object]) -> None:
    engine = engines.read(said)
    text = engines.sentence(engine)
    assert text.isprintable()
    assert len(text) < 10_000
    assert engines.read(engine) == {**engine, "url": ""}


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, "Dask on 2 nodes, http://127.0.0.1:8787/status"),
        ({"url": ""}, "Dask on 2 nodes"),
        (
            {"state": "degraded", "nodes": [GOOD_NODE, {**GOOD_NODE, "state": "ended"}]},
            "Dask on 1 of 2 nodes, http://127.0.0.1:8787/status",
        ),
        ({"state": "failed"}, "Dask: failed"),
        ({"title": ""}, ""),
    ],
)
def test_ps_shows_it(change: dict[str, object], shown: str) -> None:
    row = {**engines.read(GOOD), "url": "http://127.0.0.1:8787/status", **change}
    assert kernel_cells({"engine": row})["engine"] == shown
    assert kernel_cells({"engine": None})["engine"] == ""
