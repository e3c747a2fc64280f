"""ipyparallel: `ipcontroller` on the first node, an `ipengine` for each core of the others, CurveZMQ between them.

https://ipyparallel.readthedocs.io/en/latest/reference/security.html.  `Client()` looks in IPYTHONDIR, so that is a
directory of ours in which everything is the user's own, but for the default profile's `security`.
"""

import json
from typing import Dict, List

from .contract import Engine, Facts, First, Program, join

_PROFILE = "ipython/profile_default"
_SECURITY = _PROFILE + "/security"
ENGINE_FILE = _SECURITY + "/ipcontroller-engine.json"


class IPyParallel(Engine):
    name = "ipyparallel"
    title = "ipyparallel"
    worker = "engines"
    package = "ipyparallel"
    module = "ipyparallel"
    connects = "ipyparallel.Client()"
    joined = "registration::finished registering engine"
    reads = (ENGINE_FILE,)

    def head(self, first: First) -> Program:
        argv = [
            first.python,
            "-m",
            "ipyparallel.controller",
            "--profile-dir=" + join(first.directory, _PROFILE),
            "--ip=" + first.address,
            "--location=" + first.address,
            "--IPController.enable_curve=True",
            "--log-level=INFO",
            "--nodb",
            # An engine counts once its heart has beaten twice, and is given up after 30 s as by default.
            "--HeartMonitor.period=1000",
            "--HeartMonitor.max_heartmonitor_misses=30",
        ]
        # Without it the controller would make its profile, and not so that only we can read it.
        return Program(
            argv, {"PYTHONUNBUFFERED": "1"}, {_SECURITY + "/README": "of this engine alone\n"}, "", "one"
        )

    def read(self, line: str, facts: Facts) -> None:
        if "Heartmonitor beating" in line:
            facts["listens"] = True
        elif "Hub listening on " in line:
            facts["address"] = line.partition("Hub listening on ")[2].split()[0]

    def ready(self, facts: Facts) -> bool:
        return "address" in facts and "listens" in facts

    def workers(self, first: First, facts: Facts) -> Program:
        return Program(
            [first.python, "-m", "ipyparallel.engine"] + self.node_words(),
            {"PYTHONUNBUFFERED": "1"},
            self.node_files(facts),
            r"Completed registration with id \d+",
            "cpus",
        )

    def node_words(self) -> List[str]:
        """An engine's own."""
        return [
            "--file=@DIRECTORY@/engine.json",
            "--profile-dir=@DIRECTORY@/profile",
            "--log-level=INFO",
        ]

    def node_files(self, facts: Facts) -> Dict[str, str]:
        return {"engine.json": facts[ENGINE_FILE], "profile/security/README": "of this engine alone\n"}

    def files(self, first: First, facts: Facts) -> Dict[str, str]:
        """What `Cluster.from_file()` reads (ipyparallel.cluster.Cluster.to_dict)."""
        profile = join(first.directory, _PROFILE)
        controller = {"profile_dir": profile, "cluster_id": "", "state": "running", "pid": facts["pid"]}
        cluster = {
            "class": "ipyparallel.cluster.cluster.Cluster",
            "cluster": {"cluster_id": "", "profile_dir": profile},
            "controller": {"class": "local", "state": controller},
            "engines": {"class": "local", "sets": {}},
        }
        return {_SECURITY + "/cluster-.json": json.dumps(cluster)}

    def links(self, first: First) -> Dict[str, str]:
        """What IPython makes when it is first used must be in the user's own directory, too: `_KNOWN`."""
        home = first.environment.get("IPYTHONDIR") or join(first.environment.get("HOME", "/"), ".ipython")
        return {_PROFILE: join(home, "profile_default"), "ipython": home}

    def environment(self, first: First, facts: Facts) -> Dict[str, str]:
        return {"IPYTHONDIR": join(first.directory, "ipython")}
