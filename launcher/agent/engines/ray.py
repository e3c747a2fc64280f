"""Ray, 2.52 or newer: `ray start --head` on the first node, `ray start` on the others, with a token for this engine.

https://docs.ray.io/en/latest/ray-security/token-auth.html.  Older releases let everybody in who reaches their ports,
and are refused.  Nothing is encrypted: Ray's TLS wants a certificate for each address, which are not known before.
"""

import re
from typing import Dict, List, Optional

from .contract import Dashboard, Engine, Facts, First, Program, join

_AT = re.compile(r"--address='([^'\s]+:\d+)'")
_DASHBOARD = re.compile(r"RAY_API_SERVER_ADDRESS='http://127\.0\.0\.1:(\d+)'")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = "Ray runtime started"
_START = """\
import os, re, sys
import ray
if [int(each) for each in re.findall("[0-9]+", ray.__version__)[:2]] < [2, 52]:
    sys.exit("error: Ray %s asks nobody for a password; 2.52 or newer is needed" % ray.__version__)
os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", "start"] + sys.argv[1:])
"""


class Ray(Engine):
    name = "ray"
    title = "Ray"
    package = "ray[default]"
    module = "ray"
    connects = "ray.init()"

    def head(self, first: First) -> Program:
        argv = [
            "--head",
            "--node-ip-address=" + first.address,
            "--port=0",
            "--dashboard-host=127.0.0.1",
            "--dashboard-port=0",
            "--num-cpus=0",
            # Of the program's own directory, whose path is short enough for the sockets in it.
            "--temp-dir=@DIRECTORY@",
        ]
        return Program(_ray(first.python, argv), _variables(first.directory), _files(first), "", "one")

    def read(self, line: str, facts: Facts) -> None:
        plain = _COLOURS.sub("", line)
        address, dashboard = _AT.search(plain), _DASHBOARD.search(plain)
        if address:
            facts["address"] = address.group(1)
        if dashboard:
            facts["dashboard"] = (int(dashboard.group(1)), "/")
        if "--block" in plain:
            facts["blocks"] = True

    def ready(self, facts: Facts) -> bool:
        """What it says about --block comes last."""
        return "address" in facts and "blocks" in facts

    def workers(self, first: First, facts: Facts) -> Program:
        argv = [
            "--address=" + facts["address"],
            "--node-ip-address=@ADDRESS@",
            "--num-cpus=@CPUS@",
        ]
        return Program(_ray(first.python, argv), _variables("@DIRECTORY@"), _files(first), _STARTED, "one")

    def environment(self, first: First, facts: Facts) -> Dict[str, str]:
        return dict(_variables(first.directory), RAY_ADDRESS=facts["address"])

    def dashboard(self, facts: Facts) -> Optional[Dashboard]:
        return Dashboard(*facts["dashboard"]) if "dashboard" in facts else None


def _ray(python: str, argv: List[str]) -> List[str]:
    memory = ["--memory=@MEMORY@", "--object-store-memory=@QUARTER@"]
    return [python, "-c", _START, "--disable-usage-stats", "--block"] + memory + argv


def _variables(directory: str) -> Dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": join(directory, "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _files(first: First) -> Dict[str, str]:
    return {"token": first.secrets["word"]}
