"""A kernel in a container: the last part of the program that starts it, and what its runtime is owed at its end.

Apptainer and Singularity run the kernel as a child in our session, where every signal reaches it.  Podman and Docker
run it elsewhere: their client passes signals on, but SIGKILL only ends the client; so the container has a name, and
is removed by it.
"""

import hashlib
import os
import re
import shlex
import signal
from typing import List, NamedTuple, Optional

from .loop import Loop
from .problems import BadRequest
from .refusals import SAID

#: In the kernel's directory: which runtime has it.
CONTAINER = "container"
_APPTAINER = ("apptainer", "singularity")
_OCI = ("podman", "docker")
_IMAGE_FILE = re.compile(r"\.(sif|simg|img|sqsh|squashfs)\Z")
_CLIENT_FAILED = (125, 126, 127)  # podman-run(1), docker run: itself, cannot be invoked, not found

Inside = NamedTuple(
    "Inside",
    [
        ("directory", str),  # of the kernel: connection file and sockets
        ("cwd", str),
        ("name", str),  # of the container
        ("variables", List[str]),  # that were asked for
    ],
)

_BEGIN = """\
farkernel_has() {
  farkernel_tried="$farkernel_tried${farkernel_tried:+, }$1"
  command -v "$1" >/dev/null 2>&1
}
farkernel_tried=
"""
_MISSING = """\
[ -e {image} ] || farkernel_failed image {image} '' ''
"""
_RUN_APPTAINER = """\
if farkernel_has {runtime}; then
  farkernel_gpu=
  [ -e /dev/nvidiactl ] && farkernel_gpu=--nv
  [ -e /dev/kfd ] && farkernel_gpu="$farkernel_gpu --rocm"
  exec {runtime} exec $farkernel_gpu {options} {image} "$@"
fi
"""
_PULL = """\
  if ! {runtime} image inspect {image} >/dev/null 2>&1; then
    {runtime} pull {image} >"$farkernel_place/{said}" 2>&1 || {{
      cat "$farkernel_place/{said}" >&2
      farkernel_failed image {image} {runtime} "$(tail -n 5 "$farkernel_place/{said}")"
    }}
  fi
"""
# As the image's first process the kernel would not be ended by SIGTERM; a small init passes it on, where there is one.
_RUN_PODMAN = """\
if farkernel_has podman; then
{pull}\
  farkernel_user="--user 0:0"
  [ "$(id -u)" -eq 0 ] || farkernel_user="--userns keep-id"
  for farkernel_file in /usr/libexec/podman/catatonit /usr/lib/podman/catatonit /usr/bin/catatonit; do
    [ -x "$farkernel_file" ] && farkernel_user="$farkernel_user --init --init-path $farkernel_file" && break
  done
  echo podman >"$farkernel_place/{container}"
  exec podman run $farkernel_user {options} {image} "$@"
fi
"""
_RUN_DOCKER = """\
if farkernel_has docker; then
{pull}\
  farkernel_user="--user $(id -u):$(id -g)"
  case $(docker info --format '{{{{.SecurityOptions}}}}' 2>/dev/null) in
    *name=rootless*) farkernel_user="--user 0:0" ;;
  esac
  {{ command -v docker-init || ls /usr/libexec/docker/docker-init; }} >/dev/null 2>&1 &&
    farkernel_user="$farkernel_user --init"
  echo docker >"$farkernel_place/{container}"
  exec docker run $farkernel_user {options} {image} "$@"
fi
"""


def program(image: str, inside: Inside) -> str:
    """Shell lines that become the kernel ("$@") in its container, by the first runtime that is there.

    Raises `BadRequest`.
    """
    if re.match(r"([a-z]+://)?-", image):
        raise BadRequest("%r cannot be the name of an image: it would be taken for an option" % image[:80])
    scheme, _, rest = image.partition("://")
    if rest:
        named = [_apptainer(image, inside)] + ([_oci(rest, inside)] if scheme == "docker" else [])
        return _BEGIN + "".join(named) + _no_runtime(image)
    path = image_path(image)
    if path is not None:
        named = [_MISSING.format(image=shlex.quote(path)), _apptainer(path, inside)]
        if os.path.isdir(path):
            named.append(_podman("--rootfs %s:O" % shlex.quote(path), "", inside))
        return _BEGIN + "".join(named) + _no_runtime(path)
    return _BEGIN + _oci(image, inside) + _apptainer("docker://" + image, inside) + _no_runtime(image)


def image_path(image: str) -> Optional[str]:
    """The full path, if it is one; a name such as `python:3.12` is none."""
    if image.startswith(("/", "./", "../", "~")) or _IMAGE_FILE.search(image):
        return os.path.normpath(os.path.join(os.path.expanduser("~"), os.path.expanduser(image)))
    return None


def _no_runtime(image: str) -> str:
    return 'farkernel_failed runtime %s "$farkernel_tried"\n' % shlex.quote(image)


def _apptainer(image: str, inside: Inside) -> str:
    options = ["--pwd", inside.cwd]
    for path in _places(inside):
        # --bind has no way to quote; --mount has one, but not before Apptainer 1.0 and SingularityCE 3.9.
        if re.search("[:,]", path):
            options += ["--mount", "type=bind,%s,%s" % (_field("source", path), _field("destination", path))]
        else:
            options += ["--bind", path]
    words = " ".join(map(shlex.quote, options))
    return "".join(
        _RUN_APPTAINER.format(runtime=runtime, options=words, image=shlex.quote(image))
        for runtime in _APPTAINER
    )


def _oci(image: str, inside: Inside) -> str:
    quoted = shlex.quote(image)
    return _podman(
        quoted, _PULL.format(runtime="podman", image=quoted, said=SAID), inside
    ) + _RUN_DOCKER.format(
        pull=_PULL.format(runtime="docker", image=quoted, said=SAID),
        container=CONTAINER,
        options=" ".join(map(shlex.quote, _options(inside))),
        image=quoted,
    )


def _podman(image: str, pull: str, inside: Inside) -> str:
    return _RUN_PODMAN.format(
        pull=pull,
        container=CONTAINER,
        options=" ".join(map(shlex.quote, _options(inside))),
        image=image,
    )


def _options(inside: Inside) -> List[str]:
    """What podman and docker understand alike.

    The host's network, because `farkernel forward` connects to ports of the host.  The values of variables stay out
    of the command line: they may be secrets.
    """
    options = ["--rm", "--name", inside.name, "--network", "host", "--workdir", inside.cwd]
    options += ["--entrypoint", "", "--log-driver", "none", "--security-opt", "label=disable"]
    for path in _places(inside):
        options += ["--mount", "type=bind,%s,%s" % (_field("source", path), _field("target", path))]
    for name in inside.variables:
        options += ["--env", name]
    return options


def _places(inside: Inside) -> List[str]:
    return list(dict.fromkeys([inside.directory, inside.cwd]))


def _field(name: str, path: str) -> str:
    """One field of CSV."""
    field = "%s=%s" % (name, path)
    return '"%s"' % field.replace('"', '""') if re.search('[,"\n]', field) else field


# -- the end ----------------------------------------------------------------------------------------------------


def name_of(directory: str, life: int) -> str:
    """Of the container of one life of the kernel in that directory.

    Made, not remembered: what lies in the directory can be changed from inside the container.
    """
    return "farkernel-%s" % hashlib.sha256(("%s %d" % (directory, life)).encode()).hexdigest()[:16]


def runtime_of(directory: str) -> Optional[str]:
    """By what the kernel's container has to be removed; None: there is none that has to."""
    try:
        with open(os.path.join(directory, CONTAINER), encoding="utf-8") as stream:
            word = stream.read(80).strip()
    except (OSError, ValueError):
        return None
    return word if word in _OCI else None


def real_status(directory: str, wait_status: int) -> int:
    """As if there were no client in between: 128 and a signal's number mean that the kernel died of it."""
    if runtime_of(directory) is not None and os.WIFEXITED(wait_status):
        signum = os.WEXITSTATUS(wait_status) - 128
        if 0 < signum < signal.NSIG:
            return signum
    return wait_status


def client_failed(directory: str, wait_status: int) -> str:
    """What the runtime's own failure is called; empty: it did not fail itself."""
    runtime = runtime_of(directory)
    if runtime is None or not os.WIFEXITED(wait_status) or os.WEXITSTATUS(wait_status) not in _CLIENT_FAILED:
        return ""
    return "%s could not run it (status %d). The lines below say why." % (
        runtime,
        os.WEXITSTATUS(wait_status),
    )


def remove(loop: Loop, directory: str, life: int) -> None:
    """End the container whatever it does, and wait for nothing; one that is gone already is no trouble."""
    runtime = runtime_of(directory)
    if runtime is None:
        return
    import subprocess

    try:
        child = subprocess.Popen(
            [runtime, "rm", "--force", name_of(directory, life)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return  # only a module knew it

    def reap() -> None:
        if child.poll() is None:
            loop.later(0.5, reap)

    reap()


def forget(directory: str) -> None:
    """A new life begins."""
    try:
        os.unlink(os.path.join(directory, CONTAINER))
    except OSError:
        pass
