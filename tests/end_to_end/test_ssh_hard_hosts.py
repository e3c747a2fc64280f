"""Hosts that allow little, or where something is in the way: each has its kernel all the same, over one connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..sites.accounts import pam_service
from ..sites.engine import Engine, run_cell, wait_until
from ..sites.far import Notebook
from ..sites.login_host import LoginAndInner
from ..sites.netns import Network
from ..sites.small_disk import SmallDisk
from ..sites.ssh import Sshd

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

SHELLS = {"tcsh": "/usr/bin/tcsh", "fish": "/usr/bin/fish"}
NOISE = "exec 2>&1; echo Welcome; printf '\\033]0;owned\\007'; head -c 20000 /dev/zero | tr '\\0' x; echo"


class HardHost:
    """Makes the host of a name; what it needs goes with ``stack``."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.host = Sshd(directory / "sshd")

    def allow_tcp_forwarding_no(self) -> None:
        """And nothing else of that kind."""
        self.host.options = {"AllowTcpForwarding": "no", "DisableForwarding": "yes", "PermitTTY": "no"}

    def max_sessions_1(self) -> None:
        self.host.options = {"MaxSessions": "1"}

    def max_startups_2(self) -> None:
        self.host.options = {"MaxStartups": "2"}

    def pam_banner(self) -> None:
        """What PAM has to say before and after somebody is let in, and sshd's own banner."""
        text = self._directory / "text"
        text.write_text("Authorized use only! \033]0;owned\007\n" * 50)
        echo = f"pam_echo.so file={text}"
        stack = f"account optional {echo}\naccount required pam_permit.so\nsession optional {echo}\n"
        self.host.pam_service = self._stack.enter_context(
            pam_service(stack + "session required pam_permit.so\n")
        )
        self.host.options = {"UsePAM": "yes", "Banner": str(text), "PrintMotd": "yes"}

    def tcsh(self) -> None:
        self._shell("/usr/bin/tcsh")

    def fish(self) -> None:
        self._shell("/usr/bin/fish")

    def _shell(self, shell: str) -> None:
        """It runs the command as an account's login shell would."""
        self.host.options = {"ForceCommand": f'exec {shell} -c "$SSH_ORIGINAL_COMMAND"'}

    def noisy_bash(self) -> None:
        self.host.options = {"ForceCommand": f'{NOISE}; eval "$SSH_ORIGINAL_COMMAND"'}

    def read_only_home(self) -> None:
        self._home().read_only()

    def full_disk(self) -> None:
        """Of somebody who has worked there before."""
        disk = self._home()
        for name in ("startup", "security", "log", "pid"):
            (disk.root / ".ipython/profile_default" / name).mkdir(parents=True)
        (disk.root / ".ipython/profile_default/startup/README").touch()
        disk.fill()

    def _home(self) -> SmallDisk:
        """A disk for the home alone, and no other place for what programs keep there."""
        place = self._directory / "small-home"
        place.mkdir()
        disk = SmallDisk(place, "1m")
        self._stack.callback(disk.close)
        self.host.before = disk.inside()
        self.host.environment["HOME"] = str(place)
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
            del self.host.environment[name]
        return disk


HOSTS = [name for name in vars(HardHost) if not name.startswith("_")]


@pytest.mark.parametrize("kind", HOSTS)
def test_a_kernel_runs_where(kind: str, engine: Engine, home: Path) -> None:
    with ExitStack() as stack:
        made = HardHost(home.parent, stack)
        getattr(made, kind)()
        host = stack.enter_context(made.host)
        host.write_client_config()
        engine.target("far", address=host.address, kernel="python3", ssh_config=str(host.client_config))
        work_there(engine)
        assert host.logins() == 1
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)
        host.stop()


def work_there(engine: Engine) -> None:
    """Two cells and an interrupt; nothing of the host's own words gets into the notebook."""
    with Notebook(engine) as notebook:
        outcome = run_cell(notebook.client, "import os; print('hello from', os.path.expanduser('~'))", 60)
        assert "hello from /" in outcome.text, outcome.error
        assert "owned" not in outcome.text
        cell = notebook.client.execute("import time; print('be' + 'gan', flush=True); time.sleep(60)")
        notebook.shown("began")
        notebook.interrupt()
        message, _ = notebook.shown("KeyboardInterrupt")
        assert message["parent_header"]["msg_id"] == cell
        engine.client.request("stop", kernel=notebook.kernel, now=True)


def test_a_kernel_that_cannot_do_without_a_place_on_the_disk_says_so(engine: Engine, home: Path) -> None:
    """ipykernel wants to put a file into the home when there is none yet."""
    with ExitStack() as stack:
        made = HardHost(home.parent, stack)
        made._home().fill()
        host = stack.enter_context(made.host)
        host.write_client_config()
        engine.target("far", address=host.address, kernel="python3", ssh_config=str(host.client_config))
        with Notebook(engine) as notebook:
            error = run_cell(notebook.client, "1", 60).error
            assert "a disk or a quota there is full. Make room in its home" in error
            assert "No space left on device" in error
        engine.close()
        wait_until(lambda: not host.agents(), "the far agent to end", 20)
        host.stop()


@pytest.fixture
def site(home: Path) -> Iterator[LoginAndInner]:
    with Network() as network:
        site = LoginAndInner(home.parent, network)
        with site.login, site.inner:
            yield site


def test_a_kernel_runs_on_an_inner_host_where_only_the_login_host_can_be_reached(
    engine: Engine, site: LoginAndInner
) -> None:
    engine.target("far", address="ssh://inner", kernel="python3", ssh_config=str(site.config))
    work_there(engine)
    assert (site.login.logins(), site.inner.logins()) == (1, 1)
    assert not site.login.agents()  # nothing of ours runs there but ssh
    engine.close()
    wait_until(lambda: not site.inner.agents(), "the far agent to end", 20)
