"""Kernels in containers: the runtimes' exact arguments, and real containers (podman; bubblewrap for apptainer's part)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farkernel.launcher.agent import containers, refusals
from farkernel.launcher.agent.containers import Inside
from farkernel.launcher.agent.problems import BadRequest
from tests.launcher.agent.near_end import Far, NearEnd
from tests.sites.engine import wait_until
from tests.sites.podman import import_image, podman_settings, root_file_system

# The image is made once: it takes half a minute.
pytestmark = pytest.mark.xdist_group("podman")

IMAGE = "localhost/farkernel-test"


# -- what a runtime gets -----------------------------------------------------------------------------------


@pytest.fixture
def tools(home: Path) -> Path:
    """The only directory on PATH: what else the program needs, and the runtimes that a test puts there."""
    place = home / "tools"
    place.mkdir()
    for name in ("id", "cat", "tail", "ls"):
        (place / name).symlink_to(shutil.which(name) or "/nowhere")
    return place


def runtime(tools: Path, name: str, *, has_image: bool = True, info: str = "[]") -> None:
    """Tells its arguments; `pull` works for images called public."""
    (tools / name).write_text(
        f"#!{sys.executable}\nimport json, sys\nargv = sys.argv[1:]\n"
        f"if argv[:2] == ['image', 'inspect']: sys.exit({0 if has_image else 1})\n"
        "if argv[0] == 'pull' and 'public' in argv[1]: sys.exit(0)\n"
        "if argv[0] == 'pull': sys.exit('Error: initializing source: no such host')\n"
        f"if argv[0] == 'info': print({info!r}); sys.exit(0)\n"
        f"print(json.dumps([{name!r}, *argv]))\n"
    )
    (tools / name).chmod(0o755)


def ran(tools: Path, image: str, inside: Inside, *argv: str) -> tuple[list[str], str]:
    """The arguments that the runtime was called with, and what was refused."""
    begin = f'farkernel_place={_quote(inside.directory)}\nfarkernel_failed() {{ printf "%s\\0" "$@" >"$farkernel_place/failed"; exit 1; }}\n'
    program = begin + containers.program(image, inside)
    done = subprocess.run(
        ["/bin/sh", "-c", program, "sh", *argv],
        env={"PATH": str(tools), "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    refused = refusals.read(inside.directory)
    return json.loads(done.stdout) if done.stdout else [], str(refused) if refused else ""


def _quote(text: str) -> str:
    import shlex

    return shlex.quote(text)


def inside_of(home: Path, directory: str = "k", cwd: str = "work") -> Inside:
    for name in (directory, cwd):
        (home / name).mkdir(exist_ok=True)
    return Inside(str(home / directory), str(home / cwd), "farkernel-1", ["A", "B"])


@pytest.mark.parametrize("name", ["apptainer", "singularity"])
def test_apptainer(home: Path, tools: Path, name: str) -> None:
    runtime(tools, name)
    (home / "image.sif").touch()
    inside = inside_of(home)
    options = ["--pwd", inside.cwd, "--bind", inside.directory, "--bind", inside.cwd]
    for image in ("image.sif", "~/image.sif", f"{home}/image.sif"):
        assert ran(tools, image, inside, "a", "b c")[0] == [
            name, "exec", *options, f"{home}/image.sif", "a", "b c",
        ]  # fmt: skip
    for image, meant in {
        "docker://python:3": "docker://python:3",
        "oras://x/y": "oras://x/y",
        "python:3": "docker://python:3",
    }.items():
        assert ran(tools, image, inside, "a")[0] == [name, "exec", *options, meant, "a"]


def test_apptainer_with_paths_that_bind_cannot_take(home: Path, tools: Path) -> None:
    runtime(tools, "apptainer")
    (home / "image.sif").touch()
    inside = inside_of(home, cwd='a,b:c "d"')
    quoted = str(home / 'a,b:c ""d""')
    mount = f'type=bind,"source={quoted}","destination={quoted}"'
    options = ["--pwd", inside.cwd, "--bind", inside.directory, "--mount", mount]
    assert ran(tools, "image.sif", inside, "a")[0] == [
        "apptainer", "exec", *options, f"{home}/image.sif", "a",
    ]  # fmt: skip


def oci(inside: Inside) -> list[str]:
    return [
        *("--rm", "--name", "farkernel-1", "--network", "host", "--workdir", inside.cwd),
        *("--entrypoint", "", "--log-driver", "none", "--security-opt", "label=disable"),
        *("--mount", f"type=bind,source={inside.directory},target={inside.directory}"),
        *("--mount", f"type=bind,source={inside.cwd},target={inside.cwd}", "--env", "A", "--env", "B"),
    ]


def test_podman_is_before_docker(home: Path, tools: Path) -> None:
    inside = inside_of(home)
    runtime(tools, "podman")
    runtime(tools, "docker")
    argv, _ = ran(tools, "python:3.12", inside, "a", "b c")
    me = ["--user", "0:0"] if os.getuid() == 0 else ["--userns", "keep-id"]
    init = ["--init", "--init-path", "/usr/libexec/podman/catatonit"]
    assert argv == ["podman", "run", *me, *init, *oci(inside), "python:3.12", "a", "b c"]
    assert containers.runtime_of(inside.directory) == "podman"


@pytest.mark.parametrize(
    ("info", "user"),
    [("[name=seccomp]", f"{os.getuid()}:{os.getgid()}"), ("[name=seccomp name=rootless]", "0:0")],
)
def test_docker(home: Path, tools: Path, info: str, user: str) -> None:
    inside = inside_of(home)
    runtime(tools, "docker", info=info)
    argv, _ = ran(tools, "docker://python:3.12", inside, "a")
    argv = [word for word in argv if word != "--init"]  # where docker-init is
    assert argv == ["docker", "run", "--user", user, *oci(inside), "python:3.12", "a"]
    assert containers.runtime_of(inside.directory) == "docker"


def test_an_image_that_is_not_there_yet_is_fetched(home: Path, tools: Path) -> None:
    runtime(tools, "podman", has_image=False)
    inside = inside_of(home)
    assert ran(tools, "public:1", inside, "a")[0][0] == "podman"
    argv, refused = ran(tools, "private:1", inside, "a")
    assert argv == []
    assert refused.startswith("podman cannot get the container image private:1: ")
    assert "no such host" in refused


def test_what_is_missing_is_told(home: Path, tools: Path) -> None:
    inside = inside_of(home)
    assert ran(tools, "python:3", inside, "a")[1] == (
        "nothing that could run the container python:3 was found there (tried: podman, docker, apptainer, "
        "singularity). Install one of them, or name the module that brings it in modules"
    )
    runtime(tools, "apptainer")
    assert ran(tools, "image.sif", inside, "a")[1] == (
        f"the container image {home}/image.sif is not there. "
        "See that `container` in the target's configuration is right"
    )


@pytest.mark.parametrize(
    "name", ["$(touch canary)", "a'b", "a b; touch canary", "a\ntouch canary", "${HOME}"]
)
def test_hostile_images_and_directories(
    home: Path, tools: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    inside = inside_of(home, f"k {name}", f"cwd {name}")
    for one in ("podman", "apptainer", "docker"):
        runtime(tools, one)
        image, argument = ran(tools, name, inside, name)[0][-2:]
        assert (image.removeprefix("docker://"), argument) == (name, name)
        (tools / one).unlink()
    (home / name).touch()
    runtime(tools, "apptainer")
    assert ran(tools, f"{home}/{name}", inside, "a")[0][-2] == f"{home}/{name}"
    assert not list(home.rglob("canary"))
    for image in (f"-{name}", f"docker://-{name}"):
        with pytest.raises(BadRequest, match="would be taken for an option"):
            containers.program(image, inside)


def test_what_the_container_writes_into_the_directory_names_no_program(home: Path) -> None:
    for text in ("/tmp/evil", "rm", "", "podman extra", "\0"):
        (home / "container").write_text(text)
        assert containers.runtime_of(str(home)) is None


# -- real ones ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rootfs() -> Iterator[Path]:
    with root_file_system() as place:
        yield place


@pytest.fixture(scope="module")
def podman(rootfs: Path) -> Iterator[dict[str, str]]:
    """The environment in which podman works here, and has our image."""
    with podman_settings() as variables:
        import_image(rootfs, IMAGE, variables)
        yield variables


@pytest.fixture
def near(home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[NearEnd]:
    monkeypatch.setenv("FARKERNEL_AGENT_IDLE", "0.5")
    for name, value in getattr(request, "param", {}).items():
        monkeypatch.setenv(name, value)
    if "podman" in request.fixturenames:
        for name, value in request.getfixturevalue("podman").items():
            monkeypatch.setenv(name, value)
    if "apptainer" in request.fixturenames:
        monkeypatch.setenv("PATH", str(request.getfixturevalue("apptainer")), prepend=os.pathsep)
    end = NearEnd(home.parent / "far")
    end.connect()
    yield end
    for kernel in end.request("list")["kernels"]:
        if kernel["state"] != "ended":
            end.request("stop", kernel=kernel["kernel"])
    end.request("end", if_idle=False)
    end.cut()


def there() -> list[str]:
    """Names of the containers that there are."""
    command = ["podman", "ps", "--all", "--format", "{{.Names}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()


FAKE: dict[str, Any] = {"argv": ["python3", "/kernel/fakekernel.py", "{connection_file}"]}


@pytest.mark.servers
def test_a_kernel_in_podman(podman: dict[str, str], near: NearEnd, home: Path) -> None:
    work = home / "work, and more"
    work.mkdir()
    far = Far(near).up(container=IMAGE, cwd=str(work), env={"SECRET": "s3cret"}, **FAKE)
    assert far.call(b"environment", b"SECRET") == [b"s3cret"]
    assert far.call(b"place")[0].decode() == str(work)
    assert far.call(b"echo", b"x" * 100_000) == [b"x" * 100_000]
    (name,) = there()
    assert name.startswith("farkernel-")
    near.request("stop", kernel="k1", grace=10)
    reason = near.ended("k1")
    assert (reason["kind"], reason["signum"]) == ("stopped", 15)  # the init passed it on
    wait_until(lambda: not there(), "the container to go")


@pytest.mark.servers
def test_interrupt_and_kill_reach_the_kernel_in_podman(podman: dict[str, str], near: NearEnd) -> None:
    far = Far(near).up(container=IMAGE, **FAKE)
    assert far.call(b"pid")  # it is there, and not only on its way
    far.send("shell", b"sleep", b"60")
    near.request("interrupt", kernel="k1")
    reason = near.ended("k1")
    assert "KeyboardInterrupt" in reason["tail"]
    far = Far(near, "k2").up(container=IMAGE, **FAKE)
    near.request("stop", kernel="k2", grace=0)
    wait_until(lambda: not there(), "the container to go")


@pytest.mark.servers
def test_exit_status_and_death_in_podman(podman: dict[str, str], near: NearEnd) -> None:
    far = Far(near).up(container=IMAGE, **FAKE)
    far.send("shell", b"exit", b"7")
    assert near.ended("k1")["status"] == 7
    far = Far(near, "k2").up(container=IMAGE, **FAKE)
    far.send("shell", b"kill")
    assert near.ended("k2")["signum"] == 9


@pytest.mark.servers
def test_a_kernelspec_of_the_image(podman: dict[str, str], near: NearEnd) -> None:
    far = Far(near).up(container=IMAGE, kernelspec="fake")
    assert far.call(b"environment", b"FROM_SPEC") == [b"yes"]
    Far(near, "k2").start(container=IMAGE, kernelspec="other")
    assert near.ended("k2")["text"] == (
        "no kernelspec 'other' was found in the kernel's surroundings. There are: fake"
    )
    Far(near, "k3").start(container=IMAGE, kernelspec="python3")
    assert "that Python has no ipykernel" in near.ended("k3")["text"]


@pytest.mark.servers
def test_an_image_that_nobody_has(podman: dict[str, str], near: NearEnd) -> None:
    Far(near).start(container="localhost/no-such-image", **FAKE)
    text = near.ended("k1")["text"]
    assert text.startswith("podman cannot get the container image localhost/no-such-image: ")
    Far(near, "k2").start(container="no/such/image.sif", **FAKE)
    assert near.ended("k2")["text"].startswith("the container image ")


@pytest.mark.servers
def test_a_directory_is_an_image(podman: dict[str, str], near: NearEnd, rootfs: Path) -> None:
    far = Far(near).up(container=str(rootfs), **FAKE)
    assert len(far.call(b"pid")) == 1
    assert len(there()) == 1


@pytest.fixture
def apptainer(home: Path, rootfs: Path) -> Path:
    """A stand-in that takes apptainer's arguments and makes the same namespaces; its image is our root file system."""
    place = home / "apptainer"
    place.mkdir()
    (place / "apptainer").write_text(
        f"""#!/bin/sh
[ "$1" = exec ] || exit 2
shift
set -- "$@" --end
while [ "$1" != --end ]; do
  case $1 in
    --pwd) pwd=$2; shift 2 ;;
    --bind) binds="$binds --bind $2 $2"; shift 2 ;;
    *) break ;;
  esac
done
image=$1
shift
[ -f "$image" ] || exit 255
command=
while [ "$1" != --end ]; do set -- "$@" "$1"; shift; done
shift
exec bwrap --ro-bind {rootfs} / --tmpfs /tmp --dev /dev --proc /proc $binds --chdir "$pwd" -- "$@"
"""
    )
    (place / "apptainer").chmod(0o755)
    return place


@pytest.mark.servers
def test_a_kernel_in_the_session(apptainer: Path, near: NearEnd, home: Path) -> None:
    (home / "image.sif").touch()
    far = Far(near).up(container="image.sif", env={"A": "b"}, **FAKE)
    assert far.call(b"environment", b"A") == [b"b"]
    assert far.call(b"place")[0].decode() == str(home)
    assert far.call(b"pid")  # it is there, and not only on its way
    far.send("shell", b"sleep", b"60")
    near.request("interrupt", kernel="k1")
    assert "KeyboardInterrupt" in near.ended("k1")["tail"]
    far = Far(near, "k2").up(container="image.sif", **FAKE)
    near.request("stop", kernel="k2", grace=0)
    assert near.ended("k2")["kind"] == "stopped"
