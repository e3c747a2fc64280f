"""Accounts of this machine made for a test: a name, a password, a login shell, a home; and the PAM stack of an sshd.

They need root (as the container of the tests has it), and they are gone afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_LOCK = "/run/lock/farkernel-test-accounts"


@dataclass(frozen=True)
class Account:
    name: str
    password: str
    home: Path

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid


@contextlib.contextmanager
def account(directory: Path, shell: str = "/bin/bash") -> Iterator[Account]:
    """A fresh user, whose home is in the test's directory."""
    name = f"fk{secrets.token_hex(4)}"
    made = Account(name, secrets.token_hex(8), directory / "home-of-account")
    for parent in [directory, *directory.parents]:
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    _alone(
        ["useradd", "--no-log-init", "--create-home", "--home-dir", str(made.home), "--shell", shell, name]
    )
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{made.password}\n", text=True, check=True)
        yield made
    finally:
        _end_processes(made.uid)
        shutil.rmtree(f"/tmp/farkernel-{made.uid}", ignore_errors=True)
        _alone(["userdel", "--force", name])
        shutil.rmtree(made.home, ignore_errors=True)


def _alone(command: list[str]) -> None:
    """The tools for accounts refuse to wait for each other; tests that run side by side do it here."""
    with open(_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, check=True, capture_output=True)


def _end_processes(uid: int) -> None:
    """Again until none is left: an agent's guard starts its worker anew."""
    while theirs := [process for process in psutil.process_iter() if _is_of(process, uid)]:
        for process in theirs:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(theirs, timeout=5)


def _is_of(process: psutil.Process, uid: int) -> bool:
    try:
        return process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextlib.contextmanager
def pam_service(text: str) -> Iterator[str]:
    """A PAM stack of the test's own; gives the name for sshd's ``PAMServiceName`` or its program's name."""
    name = f"farkernel-{secrets.token_hex(4)}"
    path = Path("/etc/pam.d") / name
    path.write_text(text)
    try:
        yield name
    finally:
        path.unlink()


def own(path: Path, account: Account) -> None:
    """The file or directory is theirs, and all in it."""
    entry = pwd.getpwnam(account.name)
    for each in [path, *path.rglob("*")]:
        os.chown(each, entry.pw_uid, entry.pw_gid)
