"""Pools with real members: hosts behind sshd, of which some are full, drained, dead, or die (issue 7, part 5)."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..sites.crowd import crowd_of
from ..sites.engine import FAKE_KERNEL, Engine, run_cell, wait_until
from ..sites.far import Notebook
from ..sites.many_hosts import address
from ..sites.nvidia import fake_nvml
from ..sites.ssh import Sshd, free_port

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


class Site:
    """Three hosts, a, b and c, each behind its own sshd; which of them a kernel is on is seen by its run directory."""

    def __init__(self, engine: Engine, directory: Path, stack: ExitStack) -> None:
        self.engine = engine
        self.hosts = {name: stack.enter_context(Sshd(directory / name)) for name in "abc"}
        for name in self.hosts:
            self.member(name)

    def member(self, name: str, **settings: Any) -> None:
        host = self.hosts[name]
        config = str(host.write_client_config())
        given = {"address": host.address, "kernel": "fake", "ssh_config": config, **settings}
        self.engine.target(name, **given)

    def pool(self, members: str = "a,b,c", **settings: Any) -> None:
        self.engine.target("pool", address=f"pool:{members}", **{"policy": "first", **settings})

    def awake(self) -> None:
        """All links are up: nobody is passed over because this machine is slow today."""
        found = self.engine.client.request("probe", 90, targets=list(self.hosts), deadline=60, wanted=["cpu"])
        assert all(row["ok"] for row in found["targets"].values()), found

    def launch(self, target: str = "pool", **fields: Any) -> str:
        request = {"entry": target, "settings": {"target": target}, "cwd": "/", "env": {}, **fields}
        return str(self.engine.client.request("launch", **request)["kernel"])

    def settled(self, *kernels: str) -> list[str]:
        """On which members they are, once they are live."""
        wait_until(
            lambda: all(self.engine.kernel(each)["state"] in ("live", "ended") for each in kernels),
            "them to be live",
            60,
        )
        rows = [self.engine.kernel(each) for each in kernels]
        assert [row["state"] for row in rows] == ["live"] * len(rows), rows
        return [row["member"] for row in rows]

    def kernels_on(self, name: str) -> list[psutil.Process]:
        """Beside them an agent has children that come and go, such as a probe."""
        found = []
        for agent in self.hosts[name].agents():
            for child in psutil.Process(agent).children():
                with suppress(psutil.Error):
                    if "fakekernel" in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def dies(self, name: str) -> None:
        """As when somebody pulls the plug: sshd, its sessions, the agent and its kernels."""
        agents = [psutil.Process(pid) for pid in self.hosts[name].agents()]
        kernels = [child for agent in agents for child in agent.children()]
        self.hosts[name].stop()
        for process in {*agents, *kernels}:
            process.kill()
        psutil.wait_procs(kernels, 10)


@pytest.fixture
def site(engine: Engine, home: Path) -> Iterator[Site]:
    engine.fake_kernel()
    with ExitStack() as stack:
        site = Site(engine, home.parent, stack)
        yield site
        engine.close()
        wait_until(lambda: not any(host.agents() for host in site.hosts.values()), "far agents to end", 20)


def test_each_kernel_gets_a_member_and_shares_its_link(site: Site) -> None:
    site.awake()
    site.pool(policy="round-robin", env={"POOL": "yes"})
    direct = site.launch("b")
    assert site.settled(direct) == [""]
    kernels = [site.launch() for _ in range(6)]
    members = site.settled(*kernels)
    assert sorted(members) == ["a", "a", "b", "b", "c", "c"]
    assert members[:3] == members[3:]
    assert {host.logins() for host in site.hosts.values()} == {
        1
    }  # one link for each host, also with `direct`
    found = site.engine.client.request("status")["allocations"]
    assert sorted((row["target"], len(row["kernels"])) for row in found) == [("a", 2), ("b", 3), ("c", 2)]
    environment = [process.environ() for process in site.kernels_on("a")]
    assert [each["POOL"] for each in environment] == ["yes", "yes"]
    assert [site.engine.kernel(each)["target"] for each in kernels] == ["pool"] * 6


def test_the_least_loaded_has_the_fewest_kernels_also_when_all_start_at_once(site: Site) -> None:
    site.awake()
    site.pool(policy="least-loaded")
    members = site.settled(*[site.launch() for _ in range(30)])
    counts = [members.count(name) for name in "abc"]
    assert max(counts) - min(counts) <= 10, counts


def test_full_and_drained_members_are_passed_over_and_said(site: Site) -> None:
    site.member("a", drain=True)
    site.member("b", capacity=1)
    site.pool(capacity=2)
    assert site.settled(site.launch(), site.launch(), site.launch()) == ["b", "c", "c"]
    refused = site.launch()
    wait_until(lambda: site.engine.kernel(refused)["state"] == "ended", "it to be refused")
    text = site.engine.kernel(refused)["reason"]["text"]
    assert "no member of the pool pool can take this kernel" in text
    assert "a is drained (drain = true)" in text
    assert "b is full: 1 of 1 kernels (capacity)" in text
    assert "c is full: 2 of 2 kernels (capacity)" in text
    site.member("a")
    assert site.settled(site.launch()) == ["a"]


def test_dead_and_hung_members_cost_no_more_than_patience(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        config = str(site.hosts["a"].client_config)
        gone = {"kernel": "fake", "ssh_config": config}
        site.engine.target("hung", address=f"ssh://127.0.0.1:{silent.getsockname()[1]}", **gone)
        site.engine.target("dead", address=f"ssh://127.0.0.1:{free_port()}", **gone)
        site.pool("dead,hung,b")
        began = time.monotonic()
        assert site.settled(site.launch()) == ["b"]
        first = time.monotonic() - began
        began = time.monotonic()
        assert site.settled(site.launch()) == ["b"]
        print(f"\nwith a dead and a hung member: {first:.1f} s, and again {time.monotonic() - began:.1f} s")
        assert first < 30
        site.pool("dead,hung")
        refused = site.launch()
        wait_until(lambda: site.engine.kernel(refused)["state"] == "ended", "it to be refused", 60)
        text = site.engine.kernel(refused)["reason"]["text"]
        assert "dead cannot be reached: " in text
        assert "hung did not answer within 30 s" in text


def test_a_restart_stays_and_goes_elsewhere_when_the_member_is_dead(site: Site) -> None:
    site.pool(kernel="python3")
    with Notebook(site.engine, "pool") as notebook:
        assert "here" in run_cell(notebook.client, "x = 1; print('here')", 60).text
        assert site.settled(notebook.kernel) == ["a"]
        site.member("a", drain=True)
        site.launch("pool", kernel=notebook.kernel, restart=True)
        assert "here" in run_cell(notebook.client, "print('here')", 60).text
        assert site.settled(notebook.kernel) == ["a"]  # who drains a member lets its kernels end
        site.dies("a")
        wait_until(lambda: _link(site, notebook.kernel) != "up", "the link to be down")
        site.launch("pool", kernel=notebook.kernel, restart=True)
        outcome = run_cell(notebook.client, "print('x' in globals())", 90)
        assert site.settled(notebook.kernel) == ["b"]
        assert "[farkernel] a cannot be reached" in outcome.text
        assert "This kernel was started on b instead, another member of the pool pool." in outcome.text
        assert "False" in outcome.text
        assert (
            site.engine.kernel(notebook.kernel)["allocation"]
            == site.engine.client.request("list")["kernels"][0]["allocation"]
        )


def _link(site: Site, kernel: str) -> str:
    place = site.engine.kernel(kernel)["allocation"]
    rows = site.engine.client.request("status")["allocations"]
    return next((str(row["link"]) for row in rows if row["allocation"] == place), "gone")


def test_a_killed_keeper_finds_the_member_again(site: Site) -> None:
    site.pool("b,a")
    kernel = site.launch()
    assert site.settled(kernel) == ["b"]
    site.pool("a,b")
    keeper = psutil.Process(site.engine.keeper_pid())
    os.kill(keeper.pid, signal.SIGKILL)
    psutil.wait_procs([keeper], 10)
    assert site.settled(kernel) == ["b"]
    wait_until(lambda: _link(site, kernel) == "up", "the link")
    assert not site.hosts["a"].agents()


def test_one_notebook_keeps_to_its_member(site: Site) -> None:
    site.pool(policy="round-robin", sticky="notebook")
    first = site.launch(notebook="/lesson.ipynb")
    (member,) = site.settled(first)
    site.engine.client.request("stop", kernel=first, now=True)
    site.engine.client.request("cleanup", kernel=first)
    other = site.launch(notebook="/other.ipynb")
    again = site.launch(notebook="/lesson.ipynb")
    assert site.settled(again) == [member]
    assert site.settled(other) != [member]


def test_listings_know_pools(site: Site) -> None:
    site.pool("a,b")
    site.hosts["b"].stop()
    found = site.engine.client.request("reach", targets=["pool", "a"], deadline=10)["targets"]
    assert found["a"]["ok"]
    assert found["pool"]["ok"]
    assert "1 of 2 members not: b: " in found["pool"]["what"]
    answer = site.engine.client.request("elsewhere")
    assert set(answer["unreachable"]) <= {"b", "c"}  # the pool itself is not asked


# -- Raspberry Pis -----------------------------------------------------------------------------------------


def test_hot_and_throttled_members_get_no_kernels(site: Site) -> None:
    with crowd_of(site.engine.home.parent / "crowd", 5) as crowd:
        for name, number in (("hot", 3), ("weak", 4)):
            place = f"ssh://pi@{address(number)}:{crowd.port}"
            site.engine.target(name, address=place, kernel="fake", ssh_config=str(crowd.config))
        site.pool("hot,weak,b")
        assert site.settled(site.launch()) == ["b"]
        site.pool("hot,weak")
        refused = site.launch()
        wait_until(lambda: site.engine.kernel(refused)["state"] == "ended", "it to be refused", 60)
        text = site.engine.kernel(refused)["reason"]["text"]
        assert "hot is hot: 84 °C" in text
        assert "weak is throttled: under-voltage" in text


def test_a_slow_kernel_has_its_place_before_it_answers(site: Site) -> None:
    """A Pi takes ten seconds and more to a kernel's first reply: it counts, it is not given up, and it does not move."""
    gate = site.engine.home / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)\n"
    program = (
        f"{wait}os.execv({sys.executable!r}, [{sys.executable!r}, {str(FAKE_KERNEL)!r}, *os.sys.argv[1:]])"
    )
    site.engine.kernelspec("slow", [sys.executable, "-c", program, "{connection_file}"])
    site.pool("a,b", kernel="slow", capacity=1)
    first = site.launch()
    wait_until(lambda: site.engine.kernel(first)["member"] == "a", "it to be placed", 60)
    second = site.launch()
    wait_until(lambda: site.engine.kernel(second)["member"] == "b", "the other to be placed", 60)
    refused = site.launch()
    wait_until(lambda: site.engine.kernel(refused)["state"] == "ended", "it to be refused")
    assert "a is full: 1 of 1 kernels (capacity)" in site.engine.kernel(refused)["reason"]["text"]
    # Restarted before it ever answered, it stays: the member is not dead.
    site.launch("pool", kernel=first, restart=True)
    assert [site.engine.kernel(each)["member"] for each in (first, second)] == ["a", "b"]
    gate.touch()
    assert site.settled(first, second) == ["a", "b"]


def test_a_user_keeps_to_one_member_until_it_is_full(site: Site) -> None:
    site.pool(policy="round-robin", sticky="user", capacity=3)
    (member,) = site.settled(site.launch(notebook="/first.ipynb"))
    assert site.settled(site.launch(notebook="/second.ipynb"), site.launch()) == [member, member]
    (other,) = site.settled(site.launch(notebook="/third.ipynb"))
    assert other != member
    # The newest decides: whoever moved on stays there.
    assert site.settled(site.launch(notebook="/fourth.ipynb")) == [other]


def test_gpus_decide_which_member(site: Site) -> None:
    """Only b has any: what is leased there already, no other kernel is sent for."""
    library = str(fake_nvml(site.engine.home.parent))
    host = site.hosts["b"]
    host.environment |= {"LD_LIBRARY_PATH": library, "FARKERNEL_LEASES": str(host.directory / "leases")}
    host.restart()
    site.pool(resources={"gpus": 1})
    launched = []
    while True:
        launched.append(site.launch())
        wait_until(lambda: site.engine.kernel(launched[-1])["state"] in ("live", "ended"), "the kernel", 60)
        if site.engine.kernel(launched[-1])["state"] == "ended":
            break
        assert site.settled(launched[-1]) == ["b"]
    text = site.engine.kernel(launched[-1])["reason"]["text"]
    assert "a has 0 idle GPUs that would do, and 1 are asked for" in text, text
    assert "b has 0 idle GPUs that would do, and 1 are asked for" in text
    devices = [row["devices"][0]["uuid"] for row in site.engine.kernels() if row["state"] == "live"]
    assert len(devices) == len(set(devices)) == len(launched) - 1 > 0
