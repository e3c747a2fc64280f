"""A real Grid Engine on this machine: one qmaster and one execd on free ports, with a root directory of their own.

Needs root and the Debian packages gridengine-master, gridengine-exec, gridengine-client.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from .engine import wait_until
from .slurm import free_ports

_PROGRAMS = Path("/usr/lib/gridengine")
_SHARED = Path("/usr/share/gridengine")
_INSTALLED = Path("/var/lib/gridengine")

_BOOTSTRAP = """\
admin_user              none
default_domain          none
ignore_fqdn             true
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         {root}/spool
binary_path             /usr/sbin
qmaster_spool_dir       {root}/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
"""
_EXECUTION_HOST = """\
hostname              {host}
load_scaling          NONE
complex_values        NONE
user_lists            NONE
xuser_lists           NONE
projects              NONE
xprojects             NONE
usage_scaling         NONE
report_variables      NONE
"""


class GridEngineSite:
    """Started by `start`, ended by `stop`; `environment` is what its commands need to find it."""

    def __init__(self, root: Path, slots: int = 2, gpus: int = 0) -> None:
        self.root = root
        self._gpus = gpus
        self._slots = slots
        self._host = platform.node().split(".")[0]
        self._ports = free_ports(2)

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "SGE_ROOT": str(self.root / "root"),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(self._ports[0]),
            "SGE_EXECD_PORT": str(self._ports[1]),
        }

    def start(self) -> None:
        self._make_root()
        self._make_spool()
        self.command("/usr/sbin/sge_qmaster")
        wait_until(lambda: self.command("qconf", "-sh", check=False), "the qmaster to answer")
        self.command("qconf", "-ah", self._host, check=False)
        self.command("qconf", "-as", self._host)
        self._add("-Ae", "host", _EXECUTION_HOST.format(host=self._host))
        if self._gpus:
            self._declare_gpus()
        self.command("/usr/sbin/sge_execd")
        self._add("-Ahgrp", "group", f"group_name @allhosts\nhostlist {self._host}\n")
        soon = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self._change("-ssconf", "-Msconf", "schedconf", soon)
        values = {
            "qname": "all.q",
            "hostlist": "@allhosts",
            "slots": str(self._slots),
            "shell_start_mode": "unix_behavior",
            "pe_list": "NONE",
            "load_thresholds": "NONE",
        }
        self._change("-sq", "-Aq", "queue", values)
        wait_until(lambda: "lx-" in self.command("qhost", "-h", self._host), "the execution host")

    def stop(self) -> None:
        self.command("qdel", "-f", "-u", "*", check=False)
        daemons = []
        for process in psutil.process_iter(["name"]):
            try:
                named = process.info["name"] in ("sge_qmaster", "sge_execd", "sge_shepherd")
                if named and process.environ().get("SGE_ROOT") == self.environment["SGE_ROOT"]:
                    daemons += [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
        for process in daemons:
            try:
                process.terminate()
            except psutil.Error:
                continue
        _, left = psutil.wait_procs(daemons, timeout=8)
        for process in left:
            process.kill()

    def jobs(self) -> list[str]:
        """The ids of those that have not ended."""
        return [line.split()[0] for line in self.command("qstat", "-u", "*").splitlines()[2:]]

    def command(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            argv,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.stdout} {done.stderr}")
        return done.stdout

    def _declare_gpus(self) -> None:
        """A consumable of the host, as sites have it."""
        self._add("-Mc", "complex", self.command("qconf", "-sc") + "gpu gpu INT <= YES YES 0 0\n")
        self.command("qconf", "-rattr", "exechost", "complex_values", f"gpu={self._gpus}", self._host)

    def _make_root(self) -> None:
        common = self.root / "root" / "default" / "common"
        for place in (common, self.root / "spool", self.root / "qmaster", self.root / "execd"):
            place.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self.root / "root" / name).symlink_to(_INSTALLED / name)
        (common / "bootstrap").write_text(_BOOTSTRAP.format(root=self.root))
        (common / "act_qmaster").write_text(f"{self._host}\n")
        # Where this machine's name is one of 127.0.0.1's, that address is another name of it (host_aliases(5)).
        (common / "host_aliases").write_text(f"{self._host} localhost\n")

    def _make_spool(self) -> None:
        configuration = (_SHARED / "default-configuration").read_text()
        values = {
            "execd_spool_dir": str(self.root / "execd"),
            "min_uid": "0",
            "min_gid": "0",
            "load_report_time": "00:00:02",
            "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false",
        }
        path = self.root / "configuration"
        path.write_text(_with_values(configuration, values))
        defaults = str(_PROGRAMS / "spooldefaults")
        self.command(
            str(_PROGRAMS / "spoolinit"), "berkeleydb", "libspoolb", str(self.root / "spool"), "init"
        )
        self.command(defaults, "configuration", str(path))
        self.command(defaults, "complexes", str(_SHARED / "util/resources/centry"))
        self.command(defaults, "usersets", str(_SHARED / "util/resources/usersets"))
        self.command(defaults, "managers", "root")

    def _add(self, option: str, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(text)
        self.command("qconf", option, str(path))

    def _change(self, show: str, put: str, name: str, values: Mapping[str, str]) -> None:
        self._add(put, name, _with_values(self.command("qconf", show), values))


def _with_values(text: str, values: Mapping[str, str]) -> str:
    """A configuration in Grid Engine's form with some lines replaced."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    kept = [line for line in lines if line.split(None, 1)[:1] not in [[name] for name in values]]
    return "\n".join([*kept, *(f"{name} {value}" for name, value in values.items())]) + "\n"
