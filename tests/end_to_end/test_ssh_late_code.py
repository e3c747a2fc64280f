"""A login that wants a code again, hours later: what a person sees in JupyterLab, and does there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sites.accounts import pam_service
from ..sites.browser import Browser
from ..sites.engine import Engine, wait_until
from ..sites.notebook_page import OUTPUT, Shoot, no_news, open_a_notebook, run_cell
from ..sites.notebook_server import NotebookServer
from ..sites.one_time_codes import code, pam_lines
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(240)]

ASKED = ".jp-Stdin"
ANSWER = ".jp-Stdin-input"
STATUS = "#jp-main-statusbar"


@pytest.fixture
def host(engine: Engine, home: Path) -> Iterator[Sshd]:
    """It wants a key and a code at each login."""
    asking = pam_lines(home.parent / "oath-users", "root")
    with pam_service(f"{asking}account required pam_permit.so\nsession required pam_permit.so\n") as service:
        options = {
            "UsePAM": "yes",
            "KbdInteractiveAuthentication": "yes",
            "AuthenticationMethods": "publickey,keyboard-interactive",
        }
        host = Sshd(home.parent / "sshd", options)
        host.pam_service = service
        with host:
            host.write_client_config()
            engine.target("far", address=host.address, kernel="python3", ssh_config=str(host.client_config))
            yield host
            engine.close()


def test_a_code_that_is_wanted_again_is_asked_for_in_the_cell(
    engine: Engine, host: Sshd, home: Path, request: pytest.FixtureRequest
) -> None:
    install = [sys.executable, "-m", "farkernel", "install", "far", "--no-scan"]
    subprocess.run(install, check=True, timeout=60, capture_output=True)
    no_news()
    engine.keeper_pid()
    with NotebookServer(home) as server, Browser(home) as browser:
        shoot = Shoot(browser, request.node.name)
        open_a_notebook(server, browser, "far · Python")
        run_cell(browser, "x = 41; print('x', 'is', x)")
        answer(browser, shoot, "first", code())
        browser.wait_text(OUTPUT, "x is 41")
        host.restart()  # the connection is gone, and a code is good for one login
        wait_until(
            lambda: "farkernel login far" in allocation(engine)["why"], "the login to wait for somebody"
        )
        run_cell(browser, "print('x', '+ 1 is', x + 1)")
        answer(browser, shoot, "again", "000000")
        browser.wait_text(OUTPUT, "········")  # that question is over, and the next one comes
        browser.wait_text(STATUS, "Busy")
        answer(browser, shoot, "after-a-wrong-one", code(1))
        browser.wait_text(OUTPUT, "x + 1 is 42")
        shoot("end")
        assert [text.strip() for text in browser.texts(OUTPUT)] == ["x is 41", "x + 1 is 42"]
        assert host.logins() == 2


def answer(browser: Browser, shoot: Shoot, step: str, text: str) -> None:
    browser.wait_text(ASKED, "(root@127.0.0.1:")
    shoot(step)
    value = f"document.querySelector('{ANSWER}').value"

    def typed() -> bool:
        """The box may have just come, and not listen yet."""
        browser.evaluate(f"{value} = ''")
        browser.click(ANSWER)
        browser.type(text)
        return bool(browser.evaluate(value) == text)

    wait_until(typed, "the box to take what is typed")
    browser.press("Enter")


def allocation(engine: Engine) -> dict[str, str]:
    (row,) = engine.client.request("status")["allocations"]
    return dict(row)
