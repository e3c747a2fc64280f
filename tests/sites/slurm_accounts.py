"""Slurm's accounts for a site of tests: MariaDB and slurmdbd on the login host, all in ``/etc/slurm`` as seen there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_DBD = """\
AuthType=auth/munge
AuthInfo=socket=/etc/slurm/munge.socket
DbdHost=localhost
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm
LogFile=/etc/slurm/slurmdbd.log
PidFile=/etc/slurm/slurmdbd.pid
"""
_DATABASE = """\
[mysqld]
datadir=/etc/slurm/database
socket=/etc/slurm/mariadb.socket
pid-file=/etc/slurm/mariadb.pid
skip-networking
user=root
innodb_buffer_pool_size=64M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
[client]
socket=/etc/slurm/mariadb.socket
"""
_OPTIONS = "--defaults-file=/etc/slurm/mariadb.cnf"
_START = f"setsid mariadbd {_OPTIONS} >/etc/slurm/mariadb.log 2>&1 &"
_GRANT = "create database slurm; create user slurm@localhost; grant all on slurm.* to slurm@localhost"

Run = Callable[..., str]


def start_accounts(root: Path, run: Run) -> None:
    """``run``: a command on the login host, where ``root`` is ``/etc/slurm``."""
    (root / "mariadb.cnf").write_text(_DATABASE)
    (root / "slurmdbd.conf").write_text(_DBD)
    (root / "slurmdbd.conf").chmod(0o600)
    run("mariadb-install-db", _OPTIONS, "--skip-test-db", "--auth-root-authentication-method=normal")
    _start_database(run)
    run("mariadb", _OPTIONS, "-e", _GRANT)
    _start_daemon(run)
    run("sacctmgr", "-i", "add", "cluster", "farkernel")
    run("sacctmgr", "-i", "add", "account", "test")
    run("sacctmgr", "-i", "add", "user", "root", "account=test")


def restart_accounts(run: Run) -> None:
    """After a boot."""
    _start_database(run)
    _start_daemon(run)


def _start_database(run: Run) -> None:
    run("sh", "-c", _START)
    _until(run, "mariadb", _OPTIONS, "-e", "select 1")


def _start_daemon(run: Run) -> None:
    # It looks for the socket where the client library has it.
    run("env", "MYSQL_UNIX_PORT=/etc/slurm/mariadb.socket", "/usr/sbin/slurmdbd")
    _until(run, "sacctmgr", "-n", "show", "cluster")


def _until(run: Run, *argv: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            run(*argv)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
