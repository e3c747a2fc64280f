"""The table of commands, the help that a newcomer sees, and finding the command that was meant."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from ... import __version__
from ...backends import SCHEMES_THAT_WORK
from ..address import EXAMPLES as EXAMPLES_OF_ADDRESSES
from ..address import SCHEMES
from .arguments import Parser
from .output import complain, fold


class Command(NamedTuple):
    """A command and the module that has its `configure_NAME(parser)` and `run_NAME(arguments)`."""

    name: str
    group: str
    arguments: str
    summary: str
    module: str


COMMANDS = (
    Command("add", "Targets", "NAME ADDRESS", "name a place where kernels can run", "targets"),
    Command("list", "Targets", "", "the targets, and whether each can be reached", "targets"),
    Command("remove", "Targets", "NAME", "forget a target", "targets"),
    Command("scan", "Targets", "NAME", "kernels and environments found there", "scan"),
    Command("login", "Targets", "NAME", "log in once, for all kernels to come", "login"),
    Command("resources", "Targets", "[NAME…]", "what is there and what is free: CPUs, GPUs …", "resources"),
    Command("sync", "Targets", "NAME PATH [REMOTE]", "copy files to a target, or from there", "sync"),
    Command("doctor", "Targets", "NAME", "each step to a running kernel: ok, or what to do", "doctor"),
    Command("install", "Menu entries", "NAME", "put a target into the notebook's menu", "menu"),
    Command("uninstall", "Menu entries", "ENTRY", "take a menu entry away", "menu"),
    Command("ps", "Kernels", "[NAME…]", "kernels and allocations: state, reason, where", "kernels"),
    Command("stop", "Kernels", "ID", "end a kernel", "kernels"),
    Command("interrupt", "Kernels", "ID", "interrupt what a kernel is doing", "kernels"),
    Command("logs", "Kernels", "ID", "what a kernel wrote on stdout and stderr", "kernels"),
    Command("output", "Kernels", "ID", "what a kernel printed, also while nobody watched", "journal"),
    Command("attach", "Kernels", "ID", "open a console on a kernel", "attach"),
    Command("forward", "Kernels", "ID PORT", "make a port where a kernel runs reachable here", "forward"),
    Command("release", "Kernels", "ALLOCATION", "give an allocation back", "kernels"),
    Command("board", "Boards", "ACTION …", "boards: list, files, reset, REPL, flash", "board"),
    Command("image", "Boards", "BOARD FOLDER", "one file to flash, from a firmware and a folder", "image"),
    Command("fleet", "Many hosts", "ACTION …", "from one list: targets, entries, status, reset", "fleet"),
    Command("completion", "Behind the scenes", "bash|zsh|fish", "a script for your shell", "completion"),
    Command("launch", "Behind the scenes", "ENTRY -f FILE", "what a menu entry runs", "launching"),
    Command("keeper", "Behind the scenes", "status|stop|restart", "the background process", "keeper"),
)

# All of them work as they stand once there is a target called "here".
EXAMPLES = {
    "add": "farkernel add here local:\nfarkernel add torch local: --python ~/envs/torch/bin/python",
    "list": "farkernel list\nfarkernel list --json",
    "remove": "farkernel remove here",
    "scan": "farkernel scan here",
    "resources": "farkernel resources\nfarkernel resources here --watch\nfarkernel resources --html resources.html",
    "doctor": "farkernel doctor here",
    "sync": "farkernel sync here data ~/copy --dry-run\nfarkernel sync here results ~/run/results --from",
    "login": "farkernel add gpu ssh://me@gpu.example.org\nfarkernel login gpu",
    "install": "farkernel install here\nfarkernel install here --kernel ir --as here-r\nfarkernel install here --all",
    "uninstall": "farkernel uninstall here",
    "ps": "farkernel ps\nfarkernel ps here --all",
    "stop": "farkernel stop 3f2a\nfarkernel stop 3f2a --now",
    "interrupt": "farkernel interrupt 3f2a",
    "logs": "farkernel logs 3f2a",
    "output": "farkernel output 3f2a --since 10m\nfarkernel output 3f2a --into analysis.ipynb",
    "attach": "farkernel attach 3f2a",
    "forward": "farkernel forward 3f2a 8787\nfarkernel forward 3f2a 6006 --local 16006\n"
    "farkernel forward 3f2a /tmp/app.sock",
    "release": "farkernel release local:",
    "board": "farkernel board list\nfarkernel board put /dev/ttyUSB0 main.py\nfarkernel board repl /dev/ttyUSB0\n"
    "farkernel board flash /dev/ttyUSB0 lesson.bin",
    "image": "farkernel image esp8266 lesson --firmware esp8266.bin -o lesson.bin\nfarkernel image check esp8266.bin\n"
    "farkernel image raspberrypi --roster class.toml --image raspios.img.xz --out cards",
    "fleet": "farkernel fleet diff class.csv\nfarkernel fleet apply class.csv\nfarkernel fleet status --watch",
    "keeper": "farkernel keeper status\nfarkernel keeper restart",
    "completion": 'eval "$(farkernel completion bash)"',
}

HELP = """\
usage: farkernel COMMAND …

Start Jupyter kernels from the menu of any notebook, and keep them whatever
happens to the notebook server.

Quick start:
  farkernel add here local:     name a place where kernels can run
  farkernel install here        put it into the notebook's menu
  jupyter lab                   and choose it there
  farkernel doctor here         if it does not start: what is wrong, what to do

{groups}{addresses}`farkernel COMMAND --help` says more about a command.  Exit status: 0 done,
1 failed, 2 wrong usage.
"""


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) == 2 and arguments[0] == "help":
            return run([arguments[1], "--help"])
        print(help_text(), end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"farkernel {__version__}")
        return 0
    command = next((command for command in COMMANDS if command.name == arguments[0]), None)
    if command is None:
        complain(f"there is no command {arguments[0]!r}. {advice(arguments[0])}")
        return 2
    module = importlib.import_module(f".{command.module}", __package__)
    if command.module == "launching":
        return int(module.run(arguments[1:]))
    parser = Parser(
        command.name, command.summary[0].upper() + command.summary[1:] + ".", EXAMPLES[command.name]
    )
    getattr(module, f"configure_{command.name}")(parser)
    return int(getattr(module, f"run_{command.name}")(parser.parse_args(arguments[1:])))


def help_text() -> str:
    groups = ""
    for group in dict.fromkeys(command.group for command in COMMANDS):
        groups += f"{group}:\n"
        for command in COMMANDS:
            if command.group == group:
                groups += f"  {f'{command.name} {command.arguments}':<28} {command.summary}\n"
        groups += "\n"
    return HELP.format(groups=groups, addresses=addresses())


def addresses() -> str:
    """How targets of each kind are written; those that this version cannot reach are named apart."""
    here = [scheme for scheme in SCHEMES if scheme in SCHEMES_THAT_WORK]
    lines = []
    for shape in dict.fromkeys(SCHEMES[scheme] for scheme in here):
        first, *others = [scheme for scheme in here if SCHEMES[scheme] is shape]
        also = f"; likewise {', '.join(f'{other}:' for other in others)}" if others else ""
        written = EXAMPLES_OF_ADDRESSES[shape].format(first).replace(" with the names of targets", "")
        lines += [f"  {line}" for line in fold(written + also, 76)]
    missing = ", ".join(f"{scheme}:" for scheme in SCHEMES if scheme not in here)
    if missing:
        lines += fold(f"Known, but not to be reached by this version: {missing}", 78)
    return "Addresses:\n" + "\n".join(lines) + "\n\n"


def advice(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=1)
    return f"Did you mean `farkernel {near[0]}`?" if near else "See `farkernel --help`."
