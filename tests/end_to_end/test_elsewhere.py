"""Two machines of one user at one far end: kernels of the other one are found, taken up, and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from farkernel.launcher.client import KeeperClient
from farkernel.launcher.errors import FarkernelError, RemoteError

from ..sites.engine import DEADLINE, Engine, run_cell, wait_until
from ..sites.gate import Gate, keeper_behind

pytestmark = [pytest.mark.servers]


@pytest.fixture
def office(home: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    with keeper_behind(Gate(), monkeypatch) as directory:
        yield directory


@pytest.fixture
def laptop(office: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeeperClient]:
    with (
        keeper_behind(Gate(), monkeypatch, "laptop") as directory,
        KeeperClient(str(directory), start=False) as client,
    ):
        yield client


@pytest.fixture
def site(office: Path, laptop: KeeperClient, engine: Engine) -> Iterator[Engine]:
    engine.target("far", address="ssh://gate")
    yield engine
    with suppress(FarkernelError):  # in one test it has ended already
        for row in laptop.request("list")["kernels"]:
            if row["state"] != "ended":
                laptop.request("stop", kernel=row["kernel"], now=True)
        laptop.request("end")


class Page:
    """A notebook at one of the two."""

    def __init__(self, keeper: KeeperClient, connection: Any) -> None:
        self.keeper = keeper
        self.client = BlockingKernelClient()
        info: Any = {**connection, "key": connection["key"].encode()}
        self.client.load_connection_info(info)
        self.client.start_channels()
        self.client.wait_for_ready(timeout=DEADLINE)

    def run(self, code: str) -> str:
        return run_cell(self.client, code).text

    def close(self) -> None:
        self.client.stop_channels()


def launch(keeper: KeeperClient, notebook: str = "paper.ipynb") -> tuple[str, Any]:
    answer = keeper.request(
        "launch", entry="far", settings={"target": "far"}, cwd="/", env={}, notebook=notebook
    )
    return str(answer["kernel"]), answer["connection"]


def test_a_kernel_of_the_office_is_found_and_taken_up_at_home_and_taken_back(
    site: Engine, laptop: KeeperClient
) -> None:
    kernel, connection = launch(site.client)
    office = Page(site.client, connection)
    assert office.run("x = 41; print('set')") == "set\n"

    found = laptop.request("elsewhere")["kernels"]
    assert [(row["kernel"], row["entry"], row["notebook"], row["attended"]) for row in found] == [
        (kernel, "far", "paper.ipynb", True)
    ]
    assert laptop.request("list")["kernels"] == []
    assert site.client.request("elsewhere")["kernels"] == []

    taken = laptop.request("adopt", target="far", kernel=kernel)["kernel"]
    home = Page(laptop, laptop.request("connection", kernel=taken)["connection"])
    assert home.run("print(x + 1)") == "42\n"
    wait_until(lambda: site.kernel(kernel)["state"] == "ended", "the office to be told")
    assert "has taken it over, and it runs on there" in site.kernel(kernel)["reason"]["text"]
    assert home.run("y = 1; print(x)") == "41\n"  # the office's end of it has not ended the kernel

    back = site.client.request("adopt", target="far", kernel=kernel)["kernel"]
    office.close()
    office = Page(site.client, site.client.request("connection", kernel=back)["connection"])
    assert office.run("print(x + y)") == "42\n"
    office.close()
    home.close()


def test_the_same_notebook_takes_up_its_kernel_where_the_former_keeper_is_away(
    site: Engine, laptop: KeeperClient
) -> None:
    _, connection = launch(laptop)
    page = Page(laptop, connection)
    assert page.run("x = 41; print('set')") == "set\n"
    page.close()
    laptop.request("end")  # the machine is gone, and its kernel lives on
    wait_until(
        lambda: not site.client.request("elsewhere")["kernels"][0]["attended"], "the laptop to be gone"
    )

    kernel, connection = launch(site.client, "other.ipynb")
    other = Page(site.client, connection)
    assert "fresh" in other.run(
        "print('x' in dir() or 'fresh')"
    )  # another notebook has nothing to do with it
    other.close()

    kernel, connection = launch(site.client)
    office = Page(site.client, connection)
    said = office.run("print(x + 1)")
    assert said.endswith("42\n")
    assert "has been taken up with all that it had" in said
    # A restart is a fresh kernel in the same place.
    site.client.request("stop", kernel=kernel, now=True, restart=True)
    site.client.request(
        "launch", kernel=kernel, entry="far", settings={"target": "far"}, restart=True, life=2, env={}
    )
    office.close()
    office = Page(site.client, site.client.request("connection", kernel=kernel)["connection"])
    assert office.run("print('x' in dir())") == "False\n"
    office.close()


def test_a_kernel_that_is_not_there_cannot_be_adopted(site: Engine, laptop: KeeperClient) -> None:
    with pytest.raises(RemoteError, match="no kernel nothing"):
        laptop.request("adopt", target="far", kernel="nothing")
