"""Spark, standalone: a Master on the first node, a Worker on the others; a shared secret and encryption between all.

https://spark.apache.org/docs/latest/spark-standalone.html, …/security.html (spark.authenticate), …/configuration.html.
The kernel has a configuration directory of its own (SPARK_CONF_DIR) with what stands in the user's, and these settings
after it, so that `SparkSession.builder.getOrCreate()` connects.
"""

import re
from typing import Dict, List, Optional

from .contract import Dashboard, Engine, Facts, First, Program, join

_AT = re.compile(r"Starting Spark master at (spark://\S+)")
_UI = re.compile(r"Bound MasterWebUI to \S+ and started at http://[^:/\s]+:(\d+)")
_THEIRS = "kernel/spark-defaults.conf"
# spark-class of SPARK_HOME (a module may set it), or of the package in the kernel's environment.
_CLASS = """\
import os, sys
home = os.environ.get("SPARK_HOME")
if not home:
    import pyspark
    home = os.environ["SPARK_HOME"] = os.path.dirname(pyspark.__file__)
os.execv(home + "/bin/spark-class", ["spark-class"] + sys.argv[1:])
"""
_SMALLEST, _LARGEST = 512, 1024  # MiB; below 450 an executor does not start


class Spark(Engine):
    name = "spark"
    title = "Spark"
    package = "pyspark"
    module = "pyspark"
    connects = "SparkSession.builder.getOrCreate()"
    reads = (_THEIRS,)

    def head(self, first: First) -> Program:
        argv = _spark(first.python, "master.Master", first.address, "--port", "0")
        return Program(argv, _variables(first.directory), _files(first), "", "one")

    def read(self, line: str, facts: Facts) -> None:
        address, page = _AT.search(line), _UI.search(line)
        if address:
            facts["address"] = address.group(1)
        if page:
            facts["dashboard"] = (int(page.group(1)), "/")
        if "I have been elected leader" in line:
            facts["leads"] = True

    def ready(self, facts: Facts) -> bool:
        return "address" in facts and "leads" in facts

    def workers(self, first: First, facts: Facts) -> Program:
        place = ["--cores", "@CPUS@", "--memory", "@SHARE@M", "--work-dir", "@DIRECTORY@/work"]
        argv = _spark(first.python, "worker.Worker", "@ADDRESS@", *place) + [facts["address"]]
        variables = dict(_variables("@DIRECTORY@"), SPARK_LOCAL_DIRS="@DIRECTORY@")
        return Program(argv, variables, _files(first), "Successfully registered with master", "one")

    def links(self, first: First) -> Dict[str, str]:
        """The user's own configuration, as Spark itself finds it."""
        home = first.environment.get("SPARK_HOME")
        theirs = first.environment.get("SPARK_CONF_DIR") or (join(home, "conf") if home else "")
        return {"kernel": theirs} if theirs else {}

    def files(self, first: First, facts: Facts) -> Dict[str, str]:
        share = (first.memory >> 20) * 3 // 5
        settings = [
            "spark.executor.memory %dm" % max(min(share, _LARGEST), _SMALLEST),
            facts.get(_THEIRS, ""),
            _settings(first),
            "spark.master %s" % facts["address"],
            "spark.driver.host %s" % first.address,
            "spark.driver.bindAddress %s" % first.address,
        ]
        return {_THEIRS: "\n".join(settings) + "\n"}

    def environment(self, first: First, facts: Facts) -> Dict[str, str]:
        # The last is where the driver's own page listens, which knows no password.
        return {
            "SPARK_CONF_DIR": join(first.directory, "kernel"),
            "SPARK_MASTER": facts["address"],
            "PYSPARK_PYTHON": first.python,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }

    def dashboard(self, facts: Facts) -> Optional[Dashboard]:
        return Dashboard(*facts["dashboard"]) if "dashboard" in facts else None

    def missing(self, lines: List[str]) -> str:
        if any("JAVA_HOME is not set" in line or "java: not found" in line for line in lines):
            return "Java"
        return super().missing(lines)


def _spark(python: str, name: str, address: str, *more: str) -> List[str]:
    argv = [python, "-c", _CLASS, "org.apache.spark.deploy." + name, "--host", address, "--webui-port", "0"]
    return argv + list(more)


def _variables(directory: str) -> Dict[str, str]:
    return {
        "SPARK_CONF_DIR": join(directory, "daemons"),
        "SPARK_DAEMON_MEMORY": "384m",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
    }


def _settings(first: First) -> str:
    return "\n".join(
        [
            "spark.authenticate true",
            "spark.authenticate.secret %s" % first.secrets["word"],
            "spark.network.crypto.enabled true",
            "spark.master.rest.enabled false",
            "spark.ui.killEnabled false",
        ]
    )


def _files(first: First) -> Dict[str, str]:
    return {"daemons/spark-defaults.conf": _settings(first) + "\n"}
