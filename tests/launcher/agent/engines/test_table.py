"""Each engine by itself: the commands for head and workers, what their lines mean, where secrets are and are not."""

from __future__ import annotations

import pytest

from farkernel.launcher.agent.engines.contract import Engine, Facts, First
from farkernel.launcher.agent.engines.ipyparallel import ENGINE_FILE
from farkernel.launcher.agent.engines.table import ENGINES, find
from farkernel.launcher.settings import TARGET_KEYS, InvalidValue

SECRETS = {"certificate": "CERTIFICATE", "key": "PRIVATE", "word": "WORD"}
FIRST = First(
    "10.0.0.1", "/run/e", "/env/bin/python", {"HOME": "/home/me"}, SECRETS, ["n2"], 1 << 30, 2, [], ["ssh"]
)

# Lines as the programs print them (Dask 2026.8, ipyparallel 9.2, Spark 4.3, Ray 2.60).
LINES = {
    "dask": [
        "2026-11-21 09:26:27,846 - distributed.scheduler - INFO -   Scheduler at:  tls://10.0.0.1:41313",
        "2026-11-21 09:26:27,847 - distributed.scheduler - INFO -   dashboard at:  http://10.0.0.1:46475/status",
    ],
    "ipyparallel": [
        "2026-11-21 09:27:21.481 [IPController] Hub listening on tcp://10.0.0.1:55061 for registration.",
        "2026-11-21 09:27:22.048 [IPController] Heartmonitor beating every 3000ms",
    ],
    "spark": [
        "26/11/21 09:30:44 INFO Master: Starting Spark master at spark://10.0.0.1:38755",
        "26/11/21 09:30:48 INFO MasterWebUI: Bound MasterWebUI to 127.0.0.1, and started at http://localhost:34843",
        "26/11/21 09:30:49 INFO Master: I have been elected leader! New state: ALIVE",
    ],
    "ray": [
        "INFO scripts.py:1095 -- \x1b[1m  ray start --address='10.0.0.1:40219'\x1b[22m",
        "INFO scripts.py:1124 -- \x1b[1m  RAY_API_SERVER_ADDRESS='http://127.0.0.1:38651' ray job submit\x1b[22m",
        "INFO scripts.py:1265 -- \x1b[36m\x1b[1m--block\x1b[22m\x1b[39m",
    ],
}
LINES["mpi"] = LINES["ipyparallel"]
ADDRESSES = {
    "mpi": "tcp://10.0.0.1:55061",
    "dask": "tls://10.0.0.1:41313",
    "ipyparallel": "tcp://10.0.0.1:55061",
    "spark": "spark://10.0.0.1:38755",
    "ray": "10.0.0.1:40219",
}
DASHBOARDS = {
    "dask": (46475, "/status"),
    "ipyparallel": None,
    "mpi": None,
    "spark": (34843, "/"),
    "ray": (38651, "/"),
}
UP = {
    "dask": "distributed.worker - INFO -         Registered to:      tls://10.0.0.1:41313",
    "ipyparallel": "[IPEngine.0] Completed registration with id 0",
    "mpi": "2026-11-21 13:05:06.101 [IPEngine.3] Completed registration with id 3",
    "spark": "26/11/21 10:12:06 INFO Worker: Successfully registered with master spark://10.0.0.1:38755",
    "ray": "SUCC scripts.py:1085 -- \x1b[32mRay runtime started.\x1b[39m",
}


def ready(engine: Engine) -> Facts:
    facts: Facts = {"pid": 7, ENGINE_FILE: '{"curve_serverkey": "SERVERKEY"}'}
    for line in LINES[engine.name]:
        assert not engine.ready(facts)
        engine.read(line, facts)
    assert engine.ready(facts)
    return facts


def test_the_configuration_knows_the_same() -> None:
    parse = TARGET_KEYS["cluster"]
    assert callable(parse)
    assert [parse(name) for name in ENGINES] == list(ENGINES)
    with pytest.raises(InvalidValue):
        parse("hadoop")


@pytest.mark.parametrize("name", ENGINES)
def test_lines(name: str) -> None:
    import re

    engine = find(name)
    facts = ready(engine)
    assert facts["address"] == ADDRESSES[name]
    found = engine.dashboard(facts)
    assert (tuple(found) if found else None) == DASHBOARDS[name]
    pattern = engine.workers(FIRST, facts).up
    assert re.search(pattern, UP[name])
    assert not any(re.search(pattern, line) for line in LINES[name] if name != "ray")


@pytest.mark.parametrize("name", ENGINES)
def test_no_secret_is_where_others_could_read_it(name: str) -> None:
    """Arguments and variables of a process can be seen by every user of a machine, files in a private directory not."""
    engine = find(name)
    facts = ready(engine)
    head, workers = engine.head(FIRST), engine.workers(FIRST, facts)
    seen = [*head.argv, *workers.argv, *head.environment.values(), *workers.environment.values()]
    seen += engine.environment(FIRST, facts).values()
    assert not [word for word in seen for secret in ("PRIVATE", "WORD", "SERVERKEY") if secret in word]
    kept = "".join([*head.files.values(), *workers.files.values(), *engine.files(FIRST, facts).values()])
    assert any(secret in kept for secret in ("PRIVATE", "WORD", "SERVERKEY"))


@pytest.mark.parametrize("name", ENGINES)
def test_it_listens_on_the_nodes_network_only(name: str) -> None:
    engine = find(name)
    words = " ".join(engine.head(FIRST).argv)
    assert "10.0.0.1" in words
    assert "0.0.0.0" not in words
    assert "@ADDRESS@" in " ".join(engine.workers(FIRST, ready(engine)).argv) or name in (
        "ipyparallel",
        "mpi",
    )


def test_dask() -> None:
    engine = find("dask")
    facts = ready(engine)
    assert engine.environment(FIRST, facts) == {
        "DASK_SCHEDULER_ADDRESS": "tls://10.0.0.1:41313",
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/run/e/certificate.pem",
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": "/run/e/certificate.pem",
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": "/run/e/key.pem",
    }
    assert engine.workers(FIRST, facts).argv[3] == "tls://10.0.0.1:41313"


def test_dask_without_a_dashboard() -> None:
    engine = find("dask")
    facts: Facts = {}
    for line in (LINES["dask"][0], "distributed.scheduler - INFO - Registering Worker plugin shuffle"):
        engine.read(line, facts)
    assert engine.ready(facts)
    assert engine.dashboard(facts) is None


def test_spark_keeps_the_users_own_settings_before_ours() -> None:
    engine = find("spark")
    facts = {
        **ready(engine),
        "kernel/spark-defaults.conf": "spark.executor.memory 7g\nspark.authenticate false",
    }
    (content,) = engine.files(FIRST, facts).values()
    lines = content.splitlines()
    assert lines[0] == "spark.executor.memory 614m"
    assert lines.index("spark.executor.memory 7g") < lines.index("spark.authenticate true")
    assert lines[-3:] == [
        "spark.master spark://10.0.0.1:38755",
        "spark.driver.host 10.0.0.1",
        "spark.driver.bindAddress 10.0.0.1",
    ]
    assert engine.environment(FIRST, facts)["SPARK_CONF_DIR"] == "/run/e/kernel"


@pytest.mark.parametrize(
    ("environment", "theirs"),
    [
        ({}, {}),
        ({"SPARK_HOME": "/opt/spark"}, {"kernel": "/opt/spark/conf"}),
        ({"SPARK_HOME": "/opt/spark", "SPARK_CONF_DIR": "/etc/spark"}, {"kernel": "/etc/spark"}),
    ],
)
def test_where_sparks_own_configuration_is(environment: dict[str, str], theirs: dict[str, str]) -> None:
    assert find("spark").links(FIRST._replace(environment=environment)) == theirs


def test_spark_without_java() -> None:
    assert find("spark").missing(["JAVA_HOME is not set"]) == "Java"
    assert find("spark").missing(["ModuleNotFoundError: No module named 'pyspark'"]) == "pyspark"
    assert find("spark").missing(["something else"]) == ""


@pytest.mark.parametrize(("version", "starts"), [("2.51.9", False), ("2.52.0", True), ("3.0.0rc1", True)])
def test_ray_that_cannot_authenticate_is_refused(version: str, starts: bool) -> None:
    """Its releases before 2.52 ignore the token, and let everybody in."""
    program = find("ray").head(FIRST).argv[2]
    check = program.replace("import ray\n", "").partition("os.execv")[0]
    ray = type("ray", (), {"__version__": version})
    if starts:
        exec(check, {"ray": ray})  # noqa: S102 - the text of the program is what is tested
    else:
        with pytest.raises(SystemExit, match=f"Ray {version} asks nobody for a password; 2.52 or newer"):
            exec(check, {"ray": ray})  # noqa: S102


def test_ipyparallel_has_the_users_profile_but_for_its_security() -> None:
    engine = find("ipyparallel")
    links = engine.links(FIRST)
    assert links["ipython/profile_default"] == "/home/me/.ipython/profile_default"
    assert list(links)[-1] == "ipython"  # the profile is there by then, and is not replaced by a link
    assert engine.environment(FIRST, ready(engine)) == {"IPYTHONDIR": "/run/e/ipython"}
