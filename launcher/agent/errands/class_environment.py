"""The environment of a fleet's kernels on one host (`farkernel fleet diff|apply --hosts`): looked at, or made.

A program of its own: ``python -c … SIZE ORDER``.  ORDER is JSON: ``role`` (look, make), ``directory``, ``kernels``
(where kernelspecs for all users are), ``name``, ``display_name``, ``packages``, ``wheels`` (a folder here; null: pip
asks its index).  It says JSON: ``missing`` (packages), ``kernelspec`` (it is there), ``python`` (a version; null: there
is no environment).
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any, Dict, List, Optional

#: In the environment's own Python: which of the packages are not there, or in another version than was asked for.
_LOOK = """
import importlib.metadata, json, re, sys
missing = []
for text in json.loads(sys.argv[1]):
    name = re.split(r"[\\[=<>~!]", text)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(text)
        continue
    try:
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        continue
    if version not in Requirement(text).specifier:
        missing.append(text)
print(json.dumps({"missing": missing, "python": "%d.%d.%d" % sys.version_info[:3]}))
"""


class Failed(Exception):
    """What is said on stderr."""


def look(order: Dict[str, Any]) -> Dict[str, Any]:
    found = {"missing": order["packages"], "python": None}  # type: Dict[str, Any]
    python = os.path.join(order["directory"], "bin", "python")
    if os.path.exists(python):
        done = run([python, "-I", "-c", _LOOK, json.dumps(order["packages"])])
        if done.returncode == 0:
            found = json.loads(done.stdout)
    found["kernelspec"] = os.path.exists(os.path.join(order["kernels"], order["name"], "kernel.json"))
    return found


def make(order: Dict[str, Any]) -> Dict[str, Any]:
    """What is there already stays; raises Failed."""
    os.umask(0o022)
    directory = order["directory"]
    python = os.path.join(directory, "bin", "python")
    if not os.path.exists(python):
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        done = run([sys.executable, "-m", "venv", "--system-site-packages", directory])
        if done.returncode != 0:
            shutil.rmtree(directory, ignore_errors=True)
            raise Failed(
                "no virtual environment can be made there: %s" % last_line(done.stdout + done.stderr)
            )
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
    if order.get("wheels"):
        pip += ["--no-index", "--find-links", order["wheels"]]
    done = run(pip + order["packages"])
    if done.returncode != 0:
        raise Failed("pip: %s" % last_line(done.stderr or done.stdout))
    write_kernelspec(order, python)
    return look(order)


def write_kernelspec(order: Dict[str, Any], python: str) -> None:
    spec = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": order["display_name"],
        "language": "python",
        "metadata": {"debugger": True},
    }
    place = os.path.join(order["kernels"], order["name"])
    os.makedirs(place, exist_ok=True)
    fresh = os.path.join(place, "kernel.json.new")
    with open(fresh, "w", encoding="ascii") as file:
        json.dump(spec, file, indent=1)
    os.replace(fresh, os.path.join(place, "kernel.json"))


def run(command: List[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        check=False,
    )


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines or ["it said nothing"])[-1][:300]


def may_write(path: str) -> bool:
    """Whether this user may make it, or change what is in it."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK)


def as_root(program: str, order: str) -> Optional[int]:
    """By sudo, if that asks for nothing; None: there is no sudo."""
    code = "import sys\nexec(compile(sys.stdin.buffer.read(), 'environment', 'exec'))"
    command = ["sudo", "-n", sys.executable, "-I", "-c", code, str(len(program)), order]
    try:
        return subprocess.run(command, input=program.encode(), check=False).returncode
    except OSError:
        return None


def main(program: str) -> int:
    order = json.loads(sys.argv[2])
    mine = may_write(order["directory"]) and may_write(order["kernels"])
    if order["role"] == "make" and not mine and os.getuid() != 0:
        status = as_root(program, sys.argv[2])
        if status is None:
            raise Failed("only root may write to %s, and there is no sudo" % order["directory"])
        return status
    sys.stdout.write(json.dumps(make(order) if order["role"] == "make" else look(order)) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(globals().get("PROGRAM", "")))
    except (OSError, Failed) as error:
        sys.stderr.write("%s\n" % error)
        sys.exit(1)
