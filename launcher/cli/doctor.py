"""`farkernel doctor`: each step from here to a running kernel; ok, or what is wrong and what to do."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

from .. import configuration
from ..configuration import Target
from ..errors import FarkernelError
from ..text import one_line
from . import table
from .arguments import add_json
from .asking import Asking, Progress
from .output import colours_wanted, emit, fold, paint, terminal_columns

STEP_DEADLINE = 60.0
START_DEADLINE = 300.0
REPLY_DEADLINE = 60.0


class Wrong(FarkernelError):
    """What a step found."""

    kind = "doctor"


class Step(NamedTuple):
    """A step; those that are needed build on each other, and the first that fails makes the rest pointless."""

    name: str
    check: Callable[[Patient], str]
    needed: bool = True


class Patient:
    """What the steps find out for those after them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._target: Target | None = None
        self._client: Asking | None = None
        self.hopeless = False  # a step that all later ones need has failed

    @property
    def target(self) -> Target:
        if self._target is None:
            self._target = configuration.load().target(self.name)
        return self._target

    @property
    def client(self) -> Asking:
        if self._client is None:
            self._client = Asking()
            self._client.may_be_asked(self.name)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Go each step from here to a running kernel of a target, and say of each that it is ok, or what is wrong and "
        "what to do.  A kernel is started there and ended again."
    )
    parser.add_argument("name", metavar="NAME", help="a target")
    add_json(parser)


def run_doctor(arguments: argparse.Namespace) -> int:
    patient = Patient(arguments.name)
    results: list[dict[str, Any]] = []
    not_taken: list[str] = []
    try:
        for result in examine(patient):
            results.append(result)
            if arguments.json:
                continue
            if result["state"] != "skipped" and not_taken:
                show_skipped(not_taken)
                not_taken.clear()
            if result["state"] == "skipped":
                not_taken.append(result["step"])
            else:
                show(result)
    finally:
        patient.close()
    failed = any(result["state"] == "failed" for result in results)
    if arguments.json:
        emit({"target": arguments.name, "ok": not failed, "steps": results})
    return 1 if failed else 0


def examine(patient: Patient) -> Any:
    """The result of each step, as it is found."""
    for step in all_steps(patient):
        if step.needed and patient.hopeless:
            yield {"step": step.name, "state": "skipped", "what": "", "advice": ""}
            continue
        try:
            with Progress(step.name):
                what = step.check(patient)
            yield {"step": step.name, "state": "ok", "what": what, "advice": ""}
        except FarkernelError as error:
            yield {"step": step.name, "state": "failed", "what": error.what, "advice": error.advice}
            patient.hopeless = patient.hopeless or step.needed


def all_steps(patient: Patient) -> Iterator[Step]:
    """Ours, and those of the target's own backend where they belong; it is asked when its turn has come."""
    for step in STEPS:
        if step.name == "route" and not patient.hopeless:
            yield from _backend_steps(patient)
        if step.name != "engine" or (not patient.hopeless and patient.target.cluster):
            yield step


def _backend_steps(patient: Patient) -> list[Step]:
    try:
        names = patient.client.request("doctor", target=patient.name).get("steps")
    except FarkernelError:
        return []  # an earlier step has said why
    return [Step(str(name), _far(f"backend:{name}")) for name in names or ()]


def show(result: dict[str, Any]) -> None:
    """One line if it is ok; what to do below it, folded to the terminal, if it is not."""
    colours = colours_wanted(sys.stdout)
    width = terminal_columns(sys.stdout) or 120
    indent = " " * (_NAMES + 2 + 7 + 2)
    state = paint(f"{result['state']:<7}", table.COLOURS.get(result["state"]), colours)
    lines = fold(one_line(result["what"]), width - len(indent))
    if result["advice"]:
        lines += fold(one_line(result["advice"]), width - len(indent))
    print(f"{result['step']:<{_NAMES}}  {state}  {(lines or [''])[0]}".rstrip())
    for line in lines[1:]:
        print(indent + line)
    sys.stdout.flush()


def show_skipped(names: list[str]) -> None:
    """What would have come after a step that failed, in one line."""
    show({"step": "", "state": "skipped", "what": ", ".join(names), "advice": ""})


# -- the steps ---------------------------------------------------------------------------------------------


def _configuration(patient: Patient) -> str:
    loaded = configuration.load()
    patient._target = loaded.target(patient.name)
    files = ", ".join(loaded.sources[patient.name])
    warnings = f"; {'; '.join(loaded.warnings)}" if loaded.warnings else ""
    return f"{files}{warnings}"


def _address(patient: Patient) -> str:
    from ...backends import find_backend

    address = patient.target.address
    find_backend(address.scheme)
    return str(address)


def _keeper(patient: Patient) -> str:
    found = patient.client.request("status")
    return f"process {found.get('pid')}, version {found.get('version')}"


def _far(step: str) -> Callable[[Patient], str]:
    """A step that the keeper takes (`launcher.keeper.visits`)."""

    def check(patient: Patient) -> str:
        answer = patient.client.request(
            "doctor", STEP_DEADLINE + 10, target=patient.name, step=step, deadline=STEP_DEADLINE
        )
        return str(answer.get("what") or "")

    return check


def _kernel(patient: Patient) -> str:
    """Start one as a front end would, and wait for its own first reply."""
    client, name = patient.client, secrets.token_hex(16)
    began = time.monotonic()
    answer = client.request(
        "launch",
        START_DEADLINE,
        kernel=name,
        entry="",
        settings={"target": patient.name},
        connection=None,
        cwd=None,
        env={},
        notebook=None,
        front="doctor",
        restart=False,
        life=None,
    )
    try:
        wait_until_live(client, name)
        says = first_reply(answer["connection"])
        return f"first reply after {time.monotonic() - began:.1f} s: {says}{_way(client, name)}"
    finally:
        client.unwatch(name)
        with suppress(FarkernelError):
            client.request("stop", STEP_DEADLINE, kernel=name, now=True, restart=False)
            client.request("cleanup", STEP_DEADLINE, kernel=name, restart=False)


def _way(client: Asking, kernel: str) -> str:
    """How its job was entered, if it is in one."""
    for row in client.request("list").get("allocations") or []:
        if kernel in (row.get("kernels") or []) and row.get("job"):
            return f"; in job {row['job']} on {row.get('where') or 'a node'}, entered by: {row.get('way') or 'unknown'}"
    return ""


def wait_until_live(client: Asking, kernel: str) -> None:
    changed = threading.Event()
    last: dict[str, Any] = {}

    def callback(event: dict[str, Any]) -> None:
        last.update(event)
        if event.get("state") in ("live", "ended"):
            changed.set()

    client.watch(kernel, callback)
    if not changed.wait(START_DEADLINE):
        state, why = last.get("state", "waiting"), last.get("why") or "no reason is known"
        raise Wrong(
            f"it is still {state} after {START_DEADLINE:.0f} s: {why}",
            "A queue can be that long; else see the steps above.",
        )
    if last["state"] == "ended":
        reason = last.get("reason") if isinstance(last.get("reason"), dict) else {}
        tail = one_line(str((reason or {}).get("tail") or ""))[-300:]
        text = str((reason or {}).get("text") or "it ended at once")
        raise Wrong(
            text,
            f"The last that it wrote: {tail}" if tail else "Start it there by hand, and see what it says.",
        )


def first_reply(connection: dict[str, Any]) -> str:
    """What the kernel says of itself."""
    import queue

    from jupyter_client.blocking.client import BlockingKernelClient

    client = BlockingKernelClient()
    client.load_connection_info(cast(Any, connection))
    client.start_channels(iopub=False, stdin=False, hb=False)
    try:
        client.kernel_info()
        content = client.get_shell_msg(timeout=REPLY_DEADLINE)["content"]
    except queue.Empty:
        raise Wrong(
            f"it runs, but did not answer within {REPLY_DEADLINE:.0f} s",
            "See what it wrote: farkernel logs ID",
        ) from None
    finally:
        client.stop_channels()
    info = content.get("language_info") or {}
    implementation = (
        f"{content.get('implementation', '')} {content.get('implementation_version', '')}".strip()
    )
    return f"{implementation}, {info.get('name', '')} {info.get('version', '')}".strip(" ,")


def _menu_entry(patient: Patient) -> str:
    from ...kernelspecs import entries

    found = [entry for entry in entries.installed() if entry.settings.get("target") == patient.name]
    if not found:
        raise Wrong("no menu entry is installed", f"To have one: farkernel install {patient.name}")
    for entry in found:
        argv = entry.spec.get("argv") or [""]
        if not (os.path.isabs(argv[0]) and shutil.which(argv[0])):
            raise Wrong(
                f"{entry.directory} runs {argv[0]!r}, which is not there",
                f"Make it anew: farkernel install {patient.name} --as {entry.name}",
            )
    return ", ".join(dict.fromkeys(entry.name for entry in found))


def _provisioner(patient: Patient) -> str:
    from importlib.metadata import entry_points, version

    from ...kernelspecs.entries import PROVISIONER

    found = entry_points(group="jupyter_client.kernel_provisioners", name=PROVISIONER)
    if not found:
        raise Wrong(
            f"{sys.prefix} does not know the provisioner, so that its notebook server hides the menu entries",
            f"Install it there: {sys.executable} -m pip install farkernel",
        )
    return f"known to jupyter_client {version('jupyter_client')} in {sys.prefix}"


STEPS = (
    Step("configuration", _configuration),
    Step("address", _address),
    Step("keeper", _keeper),
    Step("route", _far("route")),
    Step("shell", _far("shell")),
    Step("Python", _far("python")),
    Step("disk", _far("disk")),
    Step("run directory", _far("run-directory")),
    Step("agent", _far("agent")),
    Step("kernelspec", _far("kernelspec")),
    Step("engine", _far("engine"), needed=False),
    Step("kernel", _kernel),
    Step("menu entry", _menu_entry, needed=False),
    Step("provisioner", _provisioner, needed=False),
)
_NAMES = max(len("authentication of login"), *(len(step.name) for step in STEPS))
