"""The commands with a real keeper and a real agent: scan, doctor, attach, ps; and ten of them at once."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipykernel
import jsonschema  # type: ignore[import-untyped]
import pytest
from jupyter_client.manager import KernelManager

from farkernel.kernelspecs import entries, logos, png
from farkernel.launcher.cli.schemas import SCHEMAS

from ..sites.engine import DEADLINE, Engine, connected, run_cell, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "farkernel", *arguments]
    together = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, env=together)


def as_json(schema: str, *arguments: str, status: int = 0) -> Any:
    ended = run(*arguments, "--json")
    assert ended.returncode == status, ended.stderr
    found = json.loads(ended.stdout)
    jsonschema.validate(found, SCHEMAS[schema])
    return found


@pytest.fixture
def kernel(engine: Engine) -> Iterator[KernelManager]:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    manager = KernelManager(kernel_name="here")
    manager.start_kernel()
    wait_until(lambda: engine.kernels()[0]["state"] == "live", "the kernel")
    yield manager
    manager.shutdown_kernel(now=True)


# -- scan --------------------------------------------------------------------------------------------------


def test_scan(engine: Engine, home: Path) -> None:
    engine.target("here")
    engine.fake_kernel("mine", display_name="My own")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "envs" / "empty")], check=True)
    found = as_json("scan", "scan", "here")
    assert found["complete"] is True
    (mine,) = [row for row in found["kernelspecs"] if row["name"] == "mine"]
    assert (mine["display_name"], mine["language"]) == ("My own", "python")
    by_path = {row["path"]: row for row in found["environments"]}
    version = ".".join(map(str, sys.version_info[:3]))
    empty = by_path[str(home / "envs" / "empty")]
    assert (empty["kind"], empty["version"], empty["kernel"]) == ("venv", version, False)
    assert any(row["kernel"] for row in by_path.values() if row["path"] == sys.prefix)
    text = run("scan", "here").stdout
    assert "farkernel install here --kernel mine" in text
    assert f"farkernel add NEW-NAME local: --python {sys.prefix}" in text
    assert "farkernel install here --all" in text


def test_what_scan_says_can_be_installed(engine: Engine) -> None:
    engine.target("here")
    engine.fake_kernel("mine")
    made = as_json("install", "install", "here", "--kernel", "mine", "--as", "other")
    entry = entries.find("other")
    assert entry is not None
    assert entry.settings == {"target": "here", "kernel": "mine"}
    assert made["entry"] == "other"
    # It is a kernelspec itself now, but none of that place's own.
    assert "other" not in [row["name"] for row in as_json("scan", "scan", "here")["kernelspecs"]]


def test_a_menu_entry_has_the_kernels_own_logo(engine: Engine) -> None:
    """Read from its directory where it is here; over the link, as for any far host, it is the same."""
    engine.fake_kernel("mine", language="R")
    own = {"logo-64x64.png": png.encode(png.Image(64, 64, b"\x07\x08\x09\xff" * 4096))}
    directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / "mine"
    (directory / "logo-64x64.png").write_bytes(own["logo-64x64.png"])
    (directory / "logo-svg.svg").write_bytes(b"x" * (1 << 20))  # too large for a logo
    engine.target("here", kernel="mine")
    made = as_json("install", "install", "here")
    picture = png.decode(Path(made["directory"], "logo-64x64.png").read_bytes())
    assert picture.pixels[:4] == b"\x07\x08\x09\xff"
    answer = engine.client.request("look", target="here", kernel=None)
    assert (answer["language"], logos.decoded(answer["logos"])) == ("R", own)


# -- doctor ------------------------------------------------------------------------------------------------


def states(found: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["state"] for step in found["steps"]}


def test_doctor_of_a_healthy_target(engine: Engine) -> None:
    engine.target("here", kernel="python3")
    assert run("install", "here").returncode == 0
    found = as_json("doctor", "doctor", "here")
    assert found["ok"] is True
    assert set(states(found).values()) == {"ok"}
    said = {step["step"]: step["what"] for step in found["steps"]}
    assert "ipython" in said["kernel"]
    assert said["disk"].startswith(os.environ["HOME"])
    assert said["run directory"].startswith(os.environ["FARKERNEL_RUN_DIR"])
    assert not engine.far_processes()


def test_doctor_says_what_is_wrong(engine: Engine) -> None:
    engine.target("here", kernel="pyhton3")
    found = as_json("doctor", "doctor", "here", status=1)
    assert states(found) | {"agent": "ok", "kernelspec": "failed", "kernel": "skipped"} == states(found)
    (step,) = [each for each in found["steps"] if each["step"] == "kernelspec"]
    assert "no kernelspec 'pyhton3'" in step["what"]
    assert "did you mean python3?" in step["advice"]
    (step,) = [each for each in found["steps"] if each["step"] == "menu entry"]
    assert step["advice"] == "To have one: farkernel install here"
    text = run("doctor", "here").stdout
    assert re.search(r"^ +skipped  kernel$", text, re.MULTILINE)


def test_doctor_of_a_kernel_that_dies(engine: Engine) -> None:
    engine.kernelspec("dead", [sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    engine.target("here", kernel="dead")
    found = as_json("doctor", "doctor", "here", status=1)
    (step,) = [each for each in found["steps"] if each["step"] == "kernel"]
    assert step["state"] == "failed"
    assert "no such luck" in step["advice"]


@pytest.mark.parametrize(
    ("settings", "failed", "said"),
    [
        (
            {"agent_python": ["/nowhere/python"]},
            "Python",
            "no Python 3.6 or newer was found there: of /nowhere/python, none",
        ),
        ({"python": "/nowhere/python"}, "kernelspec", "/nowhere/python was not found there"),
    ],
)
def test_doctor_stops_where_it_is_stuck(
    engine: Engine, settings: dict[str, Any], failed: str, said: str
) -> None:
    engine.target("here", **settings)
    found = as_json("doctor", "doctor", "here", status=1)
    (step,) = [each for each in found["steps"] if each["state"] == "failed" and each["step"] != "menu entry"]
    assert step["step"] == failed
    assert said in step["what"]


def test_doctor_of_a_broken_configuration(home: Path) -> None:
    directory = Path(os.environ["XDG_CONFIG_HOME"]) / "farkernel"
    directory.mkdir(parents=True)
    (directory / "bad.toml").write_text("[targets.here]\naddres = 'local:'\n")
    found = as_json("doctor", "doctor", "here", status=1)
    assert found["steps"][0]["state"] == "failed"
    assert "addres" in found["steps"][0]["what"]
    assert states(found) | {"address": "skipped", "kernel": "skipped", "provisioner": "ok"} == states(found)


# -- attach ------------------------------------------------------------------------------------------------


def test_attach(engine: Engine, kernel: KernelManager) -> None:
    with connected(kernel.connection_file) as client:
        run_cell(client, "answer = 6 * 7")
        name = engine.kernels()[0]["kernel"]
        master, slave = pty.openpty()
        command = [sys.executable, "-P", "-m", "farkernel", "attach", name[:8]]
        environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
            os.close(slave)
            said = read_until(master, b"In [")
            os.write(master, b"print('the answer is', answer)\r")
            said += read_until(master, b"the answer is 42")
            said += read_until(master, b"In [")
            os.write(master, b"\x04")
            said += read_until(master, b"Do you really want to exit")
            os.write(master, b"y\r")
            said += read_until(master, b"keeping kernel alive")
            assert process.wait(DEADLINE) == 0, said
        os.close(master)
        assert run_cell(client, "print(answer)").text == "42\n"  # it lives on
    assert list(Path(os.environ["FARKERNEL_RUN_DIR"], "keeper").glob("attach-*")) == []


def test_attach_to_a_busy_kernel_waits(engine: Engine, kernel: KernelManager, home: Path) -> None:
    done = home / "done"
    with connected(kernel.connection_file) as client:
        client.execute(f"import os, time\nwhile not os.path.exists({str(done)!r}): time.sleep(0.05)")
        master, slave = pty.openpty()
        command = [sys.executable, "-P", "-m", "farkernel", "attach", engine.kernels()[0]["kernel"]]
        environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
            os.close(slave)
            said = read_until(master, b"waiting for the kernel")
            assert b"waiting for the kernel" in said
            done.touch()
            assert b"In [" in read_until(master, b"In [")
            os.write(master, b"\x04")
            read_until(master, b"Do you really want to exit")
            os.write(master, b"y\r")
            read_until(master, b"keeping kernel alive")
            assert process.wait(DEADLINE) == 0
        os.close(master)


def read_until(descriptor: int, wanted: bytes, deadline: float = DEADLINE) -> bytes:
    said = b""
    end = time.monotonic() + deadline
    while wanted not in said and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                said += os.read(descriptor, 65536)
            except OSError:
                break
    return said


def test_attach_without_a_console(engine: Engine, home: Path) -> None:
    # A module of that name that cannot be found: the import system is told so.
    blocker = home / "sitecustomize.py"
    blocker.write_text("import sys; sys.modules['jupyter_console'] = None\n")
    ended = subprocess.run(
        [sys.executable, "-m", "farkernel", "attach", "x"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(home)},
        timeout=DEADLINE,
    )
    assert ended.returncode == 1
    assert "-m pip install jupyter_console" in ended.stderr


# -- the listings ------------------------------------------------------------------------------------------


def test_ps_says_why_kernels_ended(engine: Engine, kernel: KernelManager) -> None:
    with connected(kernel.connection_file) as client:
        client.execute("import os; os._exit(3)")
        wait_until(lambda: engine.kernels()[0]["state"] == "ended", "the kernel to end")
    found = as_json("ps", "ps")
    (row,) = found["kernels"]
    assert "status 3" in row["reason"]["text"]
    assert "status 3" in run("ps").stdout


def test_listings_hold_to_their_schemas(engine: Engine, kernel: KernelManager) -> None:
    name = engine.kernels()[0]["kernel"]
    (row,) = as_json("ps", "ps")["kernels"]
    assert (row["kernel"], row["state"]) == (name, "live")
    assert row["usage"]["memory"] > 1 << 20
    (target,) = as_json("list", "list")
    assert target["reach"]["ok"] is True
    with connected(kernel.connection_file) as client:
        run_cell(client, "import os; os.write(2, b'straight to the log\\n')")
        assert "straight to the log" in as_json("logs", "logs", name)["log"]
    assert as_json("keeper status", "keeper", "status")["kernels"] == 1
    assert as_json("interrupt", "interrupt", name) == {"kernel": name}
    assert as_json("stop", "stop", name) == {"kernel": name}


def test_ten_commands_at_once_and_no_keeper(engine: Engine) -> None:
    """Each may have to start it; one is started."""
    engine.target("here", kernel="python3")
    command = [sys.executable, "-P", "-m", "farkernel"]
    kinds = [["ps"], ["list"], ["scan", "here"], ["keeper", "status"], ["ps", "--all", "--json"]] * 2
    processes = [
        subprocess.Popen([*command, *kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for kind in kinds
    ]
    for kind, process in zip(kinds, processes, strict=True):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 or kind[0] == "keeper", err
        assert out
    assert as_json("keeper status", "keeper", "status")["running"] is True


# -- install, of what scan found ---------------------------------------------------------------------------


def test_an_environment_by_its_name(engine: Engine, home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "envs/torch")], check=True)
    engine.target("here")
    ended = run("install", "here", "--kernel", "torch", "--as", "t")
    assert "has no kernel in it" in ended.stderr
    library = next((home / "envs/torch/lib").iterdir()) / "site-packages"
    (library / "ours.pth").write_text(f"{Path(ipykernel.__file__).parents[1]}\n")
    (library / "ipykernel").symlink_to(Path(ipykernel.__file__).parent)
    as_json("install", "install", "here", "--kernel", "torch", "--as", "t")
    entry = entries.find("t")
    assert entry is not None
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert entry.display_name == f"here · Python {version} (torch)"
    assert entry.settings == {"target": "here", "python": f"{home}/envs/torch/bin/python3"}
    manager = KernelManager(kernel_name="t")
    manager.start_kernel()
    with connected(manager.connection_file) as client:
        assert run_cell(client, "import sys; print(sys.prefix)").text == f"{home}/envs/torch\n"
    manager.shutdown_kernel(now=True)
    assert "did you mean 'torch'?" in run("install", "here", "--kernel", "torhc").stderr


def test_everything(engine: Engine) -> None:
    engine.target("here")
    engine.fake_kernel("mine", display_name="My own")
    names = {made["entry"] for made in as_json("install --all", "install", "here", "--all")}
    assert {"here-mine", "here-ir"} <= names
    assert "cannot be used together with --all" in run("install", "here", "--all", "--as", "x").stderr


def test_r_without_its_kernelspec(engine: Engine) -> None:
    """It is started by the arguments that R's kernel wants."""
    engine.target("here")
    made = as_json("install", "install", "here", "--kernel", "/usr/bin/R", "--as", "r")
    assert made["spec"]["language"] == "R"
    manager = KernelManager(kernel_name="r")
    manager.start_kernel()
    with connected(manager.connection_file) as client:
        assert run_cell(client, "cat(6 * 7)").text == "42"
    manager.shutdown_kernel(now=True)


def test_modules_are_found(engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda/11.8", "cuda/12.4", "R/4.4"):
        (home / "modules" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "modules" / f"{name}.lua").write_text("")
    monkeypatch.setenv("MODULEPATH", str(home / "modules"))
    engine.target("here")
    assert {"cuda/11.8", "cuda/12.4", "R/4.4"} <= set(as_json("scan", "scan", "here")["modules"])
    assert "cuda/11.8, cuda/12.4" in run("scan", "here").stdout
