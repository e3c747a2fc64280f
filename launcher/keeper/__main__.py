"""``python -m farkernel.launcher.keeper``: started by whoever needs it first (`launcher.client_start`)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import logging.handlers
import os
import resource
import signal
import sys
from pathlib import Path

from ..agent.places import PlaceError, private_directory
from ..client_protocol import LISTENS
from ..configuration import load
from ..errors import FarkernelError
from ..trouble import SystemTrouble
from .keeper import Keeper
from .readiness import get_ready
from .server import Server
from .store import Store

_LOG_SIZE = 2 * 1024 * 1024


def main() -> int:
    """Returns the exit status; 0 also when another keeper is there already."""
    parser = argparse.ArgumentParser(prog="farkernel-keeper")
    parser.add_argument("--ready-fd", type=int, help="a byte is written here when the keeper listens")
    arguments = parser.parse_args()
    os.umask(0o077)
    starter = Starter(arguments.ready_fd)
    try:
        directory = Path(private_directory()) / "keeper"
        directory.mkdir(mode=0o700, exist_ok=True)
        if not _hold_lock(directory / "lock"):
            return 0
        _log_to(directory / "log")
        _raise_limits()
        asyncio.run(_run(directory, starter))
    except (PlaceError, FarkernelError, OSError) as error:
        # The log may be what cannot be written: whoever waits for this keeper is told as well.
        logging.getLogger(__name__).error("%s", error)
        known = SystemTrouble(error) if isinstance(error, OSError) else error
        starter.tell(str(known))
        print(known, file=sys.stderr)
        return 1
    return 0


def _hold_lock(path: Path) -> bool:
    """False: another keeper has it.  The lock ends with the process."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    pid = f"{os.getpid()}\n".encode()
    try:
        os.pwrite(lock, pid, 0)  # before the rest is cut off: on a full disk that needs no room
        os.truncate(lock, len(pid))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return True


class Starter:
    """Whoever started this keeper and waits for one word of it, at the other end of a pipe."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, what: str) -> None:
        """Only the first is said; the starter may have gone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(descriptor, what.encode()[:4000])
            os.close(descriptor)


async def _run(directory: Path, starter: Starter) -> None:
    loop = asyncio.get_running_loop()
    keeper = Keeper(directory, Store.default(directory / "state"), load)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, keeper.finished.set)
    await keeper.take_up()
    server = Server(
        str(directory / "socket"), keeper.handlers(), keeper.user.lent.lend, keeper.clients_changed
    )
    await server.start()
    logging.getLogger(__name__).info("listening; %d kernels taken up", len(keeper.kernels))
    starter.tell(LISTENS)
    getting_ready = asyncio.create_task(get_ready(load))
    await keeper.finished.wait()
    getting_ready.cancel()
    await server.close()
    await keeper.close()


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_SIZE, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _raise_limits() -> None:
    """Five sockets for each kernel and its clients: the usual soft limit of 1,024 descriptors is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
