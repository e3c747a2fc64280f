"""What holds for every test: a home of its own, no skips, no process left behind.

The whole run has one directory under /tmp (short: a unix socket's path has 107 bytes at most).  Its path is
in ``FARKERNEL_TEST`` and in every test's ``HOME`` and run directory: what a test started can be told by it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

MARKER = "FARKERNEL_TEST"
GRACE = 5.0  # seconds that a process may take to end after the last test
FOREIGN = ("FARKERNEL_", "JUPYTER", "JPY_", "XDG_", "IPYTHON", "SSH_", "SLURM_", "PBS_", "CONDA_")

# Deadlines measure the machine, not the code; examples are kept out of the tree.
hypothesis.settings.register_profile("suite", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("suite")

_directories = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores it (POSIX, 2.9.3.1), and whatever it starts too: no Ctrl-C would be seen.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not is_worker(config):
        os.environ[MARKER] = tempfile.mkdtemp(prefix="fk-", dir="/tmp")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        shutil.rmtree(os.environ.pop(MARKER), ignore_errors=True)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's processes, which share the directory of their parent."""
    return hasattr(config, "workerinput")


# -- a home of its own -----------------------------------------------------------------------------


def isolate(patch: pytest.MonkeyPatch) -> Path:
    """Make a fresh home and point the environment at it; nothing of the user's own stays in reach."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    base = Path(os.environ[MARKER]) / f"{worker or 'm'}{next(_directories)}"
    for name in list(os.environ):
        if name.startswith(FOREIGN) and name != MARKER:
            patch.delenv(name)
    home = base / "home"
    places = {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local/share",
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_STATE_HOME": home / ".local/state",
        "XDG_RUNTIME_DIR": base / "xdg",
        "FARKERNEL_RUN_DIR": base / "run",
        "JUPYTER_CONFIG_DIR": home / ".jupyter",
        "JUPYTER_DATA_DIR": home / ".local/share/jupyter",
        "JUPYTER_RUNTIME_DIR": base / "jupyter",
        "IPYTHONDIR": home / ".ipython",
    }
    for name, place in places.items():
        place.mkdir(mode=0o700, parents=True)
        patch.setenv(name, str(place))
    # `farkernel` and `python3` are those of the environment that the tests run in.
    patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return home


@pytest.fixture(scope="session", autouse=True)
def session_home() -> Iterator[Path]:
    """For fixtures that live longer than a test, such as a server for a whole module."""
    with pytest.MonkeyPatch.context() as patch:
        yield isolate(patch)


@pytest.fixture(autouse=True)
def home(session_home: Path) -> Iterator[Path]:
    """This test's ``HOME``, empty; XDG, Jupyter and Farkernel directories are in it or beside it."""
    with pytest.MonkeyPatch.context() as patch:
        place = isolate(patch)
        yield place
    shutil.rmtree(place.parent, ignore_errors=True)


# -- no skips --------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A test that did not run must not look like one that passed."""
    if report.outcome == "skipped":
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        report.outcome = "failed"
        vars(report).pop("wasxfail", None)  # pytest does not count such a failure
        report.longrepr = f"skipped or expected to fail ({why}): install what the test needs, or mend it"


# -- no process left behind ------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)  # after pytest-xdist has ended its own processes
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Also after Ctrl-C: name what is still running, end it, and fail the run."""
    if is_worker(session.config):
        return
    marker = os.environ[MARKER]
    _, left = psutil.wait_procs(ours(marker), timeout=GRACE)
    if not left:
        return
    text = "\n".join(describe(process) for process in left)
    end(left)
    report = pytest.TestReport(
        nodeid="processes left behind",
        location=("tests/conftest.py", None, "processes left behind"),
        keywords={},
        outcome="failed",
        longrepr=text,
        when="teardown",
    )
    session.config.hook.pytest_runtest_logreport(report=report)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def ours(marker: str) -> list[psutil.Process]:
    """Every other process that carries the marker in its environment, arguments or working directory."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and carries(process, marker)
    ]


def carries(process: psutil.Process, marker: str) -> bool:
    try:
        seen = [*process.environ().values(), *process.cmdline(), process.cwd()]
    except psutil.Error:  # gone, a zombie, or another user's: not one that a test started
        return False
    return any(marker in text for text in seen)


def describe(process: psutil.Process) -> str:
    try:
        test = process.environ().get("PYTEST_CURRENT_TEST", "a fixture of a module or the session")
        return f"pid {process.pid}, started by {test}: {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return f"pid {process.pid}"


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=GRACE)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=GRACE)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.Error:  # it has ended meanwhile
        pass
