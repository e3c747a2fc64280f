"""Fleets with a real keeper: thirty light hosts looked at, and a real host that is set back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from farkernel.launcher.cli import main
from farkernel.launcher.cli.schemas import SCHEMAS
from farkernel.launcher.fleet import roster

from ..sites.crowd import crowd_of
from ..sites.engine import Engine, wait_until
from ..sites.many_hosts import address
from ..sites.ssh import Sshd
from ..sites.wheels import little_wheel

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]


def fleet(*arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-P", "-m", "farkernel", "fleet", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == status, (ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stdout


def statuses(*arguments: str) -> dict[str, dict[str, Any]]:
    found = json.loads(fleet("status", "--json", *arguments))
    jsonschema.validate(found, SCHEMAS["fleet status"])
    return {row["host"]: row for row in found}


def test_thirty_hosts_of_which_one_is_hung_and_one_is_off(engine: Engine, home: Path) -> None:
    with crowd_of(home.parent / "crowd", 29, [7]) as crowd:
        rows = [f"pi{number:02},Student {number},{address(number)},{crowd.port}" for number in range(30)]
        (home / "class.csv").write_text("\n".join(["host,student,address,port", *rows]))
        (home / "class.toml").write_text(
            f'[fleet]\nhosts = "class.csv"\nuser = "pi"\n[target]\nssh_config = "{crowd.config}"\n'
        )
        fleet("apply", str(home / "class.toml"))
        began = time.monotonic()
        found = statuses("--deadline", "20")
        took = time.monotonic() - began
        print(f"\n30 hosts in {took:.1f} s, the deadline being 20 s; load {os.getloadavg()[0]:.0f}")
        states = {name: row["state"] for name, row in found.items()}
        assert (states["pi07"], states["pi29"]) == ("down", "down")
        assert {name for name, state in states.items() if state == "hot"} == {"pi03", "pi13", "pi23"}
        assert {name for name, state in states.items() if state == "throttled"} == {"pi04", "pi14", "pi24"}
        assert sum(state == "up" for state in states.values()) == 22
        assert "no answer within 20 s" in found["pi07"]["what"]
        assert "refuses connections" in found["pi29"]["what"]
        assert found["pi00"]["users"] == ["pi"]
        assert took < 60  # the hung one's deadline, and the keeper's start


@pytest.fixture
def pi(engine: Engine, home: Path) -> Any:
    """A host with a lesson, in a fleet of its own; what would restart it only says so."""
    engine.fake_kernel("python3")
    with Sshd(home.parent / "pi") as host:
        programs = home.parent / "programs"
        programs.mkdir()
        (programs / "reboot").write_text("#!/bin/sh\ntouch ~/restarted\n")
        (programs / "reboot").chmod(0o755)
        host.environment["PATH"] = f"{programs}:{host.environment['PATH']}"
        host.stop()
        host.start()
        (home / "template").mkdir()
        (home / "template" / "task.py").write_text("print('the task')\n")
        (home / "lab.toml").write_text(
            f"""
            [target]
            ssh_config = "{host.write_client_config()}"
            [reset]
            directory = "lesson"
            template = "template"
            [[hosts]]
            host = "pi1"
            address = "127.0.0.1"
            user = "{host.user}"
            port = {host.port}
            student = "Ada"
            """
        )
        fleet("apply", str(home / "lab.toml"))
        yield host
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)


def test_a_kernel_of_the_pool_is_seen_and_a_reset_ends_it(pi: Sshd, engine: Engine, home: Path) -> None:
    lesson = home / "lesson"
    lesson.mkdir()
    (lesson / "mess.txt").write_text("x")
    launched = engine.client.request(
        "launch", entry="lab", settings={"target": "lab"}, cwd="/", env={}, notebook="/a/lesson.ipynb"
    )
    kernel = str(launched["kernel"])
    wait_until(lambda: engine.kernel(kernel)["state"] == "live", "the kernel", 60)
    row = statuses("--deadline", "60")["pi1"]
    assert [each["notebook"] for each in row["kernels"]] == ["/a/lesson.ipynb"]
    assert row["student"] == "Ada"
    said = fleet("reset", "pi1", "--yes")
    assert said == "pi1: 1 kernel ended, ~/lesson is set back.\n"
    assert engine.kernel(kernel)["state"] == "ended"
    assert [path.name for path in lesson.iterdir()] == ["task.py"]
    assert [path.name for path in (home / "lesson.before").iterdir()] == ["mess.txt"]
    assert not (home / "restarted").exists()
    found = json.loads(fleet("reset", "--all", "--yes", "--reboot", "--json"))
    jsonschema.validate(found, SCHEMAS["fleet reset"])
    assert found[0]["restarted"]
    wait_until((home / "restarted").exists, "the restart")


def test_a_host_that_is_off_costs_its_deadline(pi: Sshd, engine: Engine) -> None:
    pi.stop()
    began = time.monotonic()
    said = fleet("reset", "pi1", "--yes", status=1)
    assert said.startswith("pi1: not reset: ")
    assert time.monotonic() - began < 60


def test_servers_get_the_same_for_all_their_users(engine: Engine, home: Path) -> None:
    """Two servers: one with a Farkernel whose system-wide places are its own, one without any."""
    prefix = home.parent / "server"
    program = f"import sys; sys.prefix = {str(prefix)!r}; from farkernel.launcher.cli import main; sys.exit(main([w.replace('--system', '--sys-prefix') for w in sys.argv[1:]]))"
    with Sshd(home.parent / "hub") as host:
        config = str(host.write_client_config())
        for name in ("hub1", "hub2"):
            engine.target(name, address=host.address, ssh_config=config)
        nodes = home / "nodes.toml"
        text = '[fleet]\nname = "nodes"\nservers = {}\nserver_command = {}\n[[hosts]]\nhost = "node1"\nstudent = "Zoë $(id)"\n'
        nodes.write_text(text.format('["hub1"]', json.dumps([sys.executable, "-c", program])))
        assert fleet("diff", str(nodes), "--only-servers") == (
            "+ target hub1: node1  ssh://node1\n+ target hub1: nodes  pool:node1\n"
            "+ entry hub1: nodes  nodes · Python\n3 would be added.\n"
        )
        assert not prefix.exists()
        found = json.loads(fleet("apply", str(nodes), "--json"))
        jsonschema.validate(found, SCHEMAS["fleet apply"])
        assert [change["place"] for change in found["changes"]] == ["", "", "", "hub1", "hub1", "hub1"]
        file = prefix / "etc/farkernel/fleet-nodes.toml"
        assert file.stat().st_mode & 0o777 == 0o644
        assert (prefix / "share/jupyter/kernels/nodes/kernel.json").exists()
        assert fleet("apply", str(nodes)) == "Nothing to do: all is as the roster says.\n"
        nodes.write_text(text.format('["hub1", "hub2", "none"]', '["no-such-farkernel"]'))
        command = [sys.executable, "-P", "-m", "farkernel", "fleet", "apply", str(nodes), "--only-servers"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert ended.returncode == 1
        assert "farkernel: hub2: there is no no-such-farkernel there. Install it there" in ended.stderr
        assert "farkernel: none: there is no target 'none' in the configuration" in ended.stderr
        assert "3 machines could not be asked or brought in line (hub1, hub2, none)" in ended.stderr
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)


def test_the_environment_on_the_hosts(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made from wheels, mended when a package is new, and left alone when nothing is."""
    places = home.parent / "opt"
    monkeypatch.setattr(roster, "ENVIRONMENTS", str(places / "environments"))
    monkeypatch.setattr(roster, "KERNELSPECS", str(places / "kernels"))
    (home / "wheels").mkdir()
    little_wheel(home / "wheels", "ipykernel", "ipykernel_launcher.py", "")
    with Sshd(home.parent / "pi") as host:
        text = (
            f'[target]\nssh_config = "{host.write_client_config()}"\n'
            '[environment]\nname = "class"\nwheels = "wheels"\npackages = {}\n'
            f'[[hosts]]\nhost = "pi1"\naddress = "127.0.0.1"\nport = {host.port}\nuser = "{host.user}"\n'
        )
        (home / "lab.toml").write_text(text.format("[]"))

        def run(*arguments: str, status: int = 0) -> str:
            assert main(["fleet", *arguments, str(home / "lab.toml"), "--hosts"]) == status
            said = capsys.readouterr()
            return said.err if status else said.out

        fleet("apply", str(home / "lab.toml"))
        directory = places / "environments/class"
        assert run("diff") == f"+ environment pi1: class  {directory}\n1 would be added.\n"
        assert not places.exists()
        run("apply")
        spec = json.loads((places / "kernels/class/kernel.json").read_text())
        assert spec["argv"][0] == str(directory / "bin/python")
        assert (
            subprocess.run([spec["argv"][0], "-c", "import ipykernel_launcher"], check=False).returncode == 0
        )
        assert run("diff") == "Nothing would change: all is as the roster says.\n"
        (home / "lab.toml").write_text(text.format('["lesson>=2"]'))
        assert run("diff") == "~ environment pi1: class  without lesson>=2\n1 would be changed.\n"
        little_wheel(home / "wheels", "lesson", "lesson.py", "", "1")
        said = run("apply", status=1)
        assert "farkernel: pi1: pip: ERROR: No matching distribution found for lesson>=2. See to that" in said
        assert "1 machine could not be asked or brought in line (pi1)" in said
        little_wheel(home / "wheels", "lesson", "lesson.py", "", "2.1")
        assert run("apply") == "~ environment pi1: class  without lesson>=2\n1 changed.\n"
        assert run("apply") == "Nothing to do: all is as the roster says.\n"
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)


def test_hosts_without_an_environment(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "lab.csv").write_text("host\npi1\n")
    assert main(["fleet", "diff", str(home / "lab.csv"), "--hosts"]) == 1
    assert (
        "lab.csv says nothing of an environment, and --hosts is given. Add [environment]"
        in capsys.readouterr().err
    )
