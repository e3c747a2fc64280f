"""Dask: `dask-scheduler` on the first node, `dask-worker` on the others, TLS between all of them and the client.

https://distributed.dask.org/en/stable/tls.html; the variables are dask.config's (DASK_A__B is a.b).
"""

import re
from typing import Dict, Optional

from .contract import Dashboard, Engine, Facts, First, Program, join

_AT = re.compile(r"Scheduler at:\s+(tls://\S+)")
# It says the scheduler's address there, whichever it listens on.
_DASHBOARD = re.compile(r"dashboard at:\s+http://\S+?:(\d+)(/\S*)")
# What we read must be said, whatever the user's own configuration says about logging.
_LOGGING = {"DASK_LOGGING__DISTRIBUTED": "info", "PYTHONUNBUFFERED": "1"}


class Dask(Engine):
    name = "dask"
    title = "Dask"
    package = "distributed"
    module = "distributed"
    connects = "dask.distributed.Client()"

    def head(self, first: First) -> Program:
        argv = [
            first.python,
            "-m",
            "distributed.cli.dask_scheduler",
            "--protocol=tls",
            "--host=" + first.address,
            "--port=0",
            "--dashboard-address=127.0.0.1:0",
        ]
        return Program(argv + _tls(first.directory), _LOGGING, _files(first), "", "one")

    def read(self, line: str, facts: Facts) -> None:
        address, dashboard = _AT.search(line), _DASHBOARD.search(line)
        facts["after"] = "address" in facts
        if address:
            facts["address"] = address.group(1)
        if dashboard:
            facts["dashboard"] = (int(dashboard.group(1)), dashboard.group(2))

    def ready(self, facts: Facts) -> bool:
        """The line about the dashboard, if there is one, is the next after the address."""
        return bool(facts.get("after"))

    def workers(self, first: First, facts: Facts) -> Program:
        argv = [
            first.python,
            "-m",
            "distributed.cli.dask_worker",
            facts["address"],
            "--host=@ADDRESS@",
            "--nthreads=@CPUS@",
            "--memory-limit=@MEMORY@",
            # Several nodes of a job may be one machine: names must differ.
            "--name=@NODE@-@PID@",
            "--local-directory=@DIRECTORY@",
            "--dashboard-address=127.0.0.1:0",
            "--death-timeout=60",
        ]
        return Program(argv + _tls("@DIRECTORY@"), _LOGGING, _files(first), r"Registered to:\s+tls://", "one")

    def environment(self, first: First, facts: Facts) -> Dict[str, str]:
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        certificate, key = join(first.directory, "certificate.pem"), join(first.directory, "key.pem")
        return {
            "DASK_SCHEDULER_ADDRESS": facts["address"],
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
            tls + "CA_FILE": certificate,
            tls + "CLIENT__CERT": certificate,
            tls + "CLIENT__KEY": key,
        }

    def dashboard(self, facts: Facts) -> Optional[Dashboard]:
        return Dashboard(*facts["dashboard"]) if "dashboard" in facts else None


def _files(first: First) -> Dict[str, str]:
    return {"certificate.pem": first.secrets["certificate"], "key.pem": first.secrets["key"]}


def _tls(directory: str) -> "list[str]":
    """One certificate for all of them, which is its own authority: who has its key belongs to this engine."""
    certificate, key = join(directory, "certificate.pem"), join(directory, "key.pem")
    return ["--tls-ca-file=" + certificate, "--tls-cert=" + certificate, "--tls-key=" + key]
