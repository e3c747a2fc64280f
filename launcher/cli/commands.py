"""The table of commands, the help that a newcomer sees, and finding the command that was meant."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from ... import __version__
from .arguments import Parser
from .output import complain


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
    Command("install", "Menu entries", "NAME", "put a target into the notebook's menu", "menu"),
    Command("uninstall", "Menu entries", "ENTRY", "take a menu entry away", "menu"),
    Command("ps", "Kernels", "[NAME…]", "kernels and allocations: state, reason, where", "kernels"),
    Command("stop", "Kernels", "ID", "end a kernel", "kernels"),
    Command("interrupt", "Kernels", "ID", "interrupt what a kernel is doing", "kernels"),
    Command("logs", "Kernels", "ID", "what a kernel wrote on stdout and stderr", "kernels"),
    Command("release", "Kernels", "ID", "give an allocation back", "kernels"),
    Command("launch", "Behind the scenes", "ENTRY -f FILE", "what a menu entry runs", "launching"),
    Command("keeper", "Behind the scenes", "status|stop|restart", "the background process", "keeper"),
)

HELP = """\
usage: farkernel COMMAND …

Start a Jupyter kernel anywhere you can reach, from the menu of any notebook,
and keep it whatever happens to the link in between.

Quick start:
  farkernel add lab ssh://me@lab.example.org   name a machine you can reach
  farkernel install lab                        put it into the notebook's menu
  jupyter lab                                  and choose it there

{groups}Addresses: {addresses}.
`farkernel COMMAND --help` says more about a command.  Exit status: 0 done,
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
    parser = Parser(command.name, command.summary[0].upper() + command.summary[1:] + ".")
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
    return HELP.format(groups=groups, addresses="ssh://[user@]host[:port], and local: for this machine")


def advice(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=1)
    return f"Did you mean `farkernel {near[0]}`?" if near else "See `farkernel --help`."
