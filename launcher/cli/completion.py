"""`farkernel completion bash|zsh|fish`: a script for the shell, made from the commands themselves."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterable

from .arguments import Parser
from .commands import COMMANDS, Command

SHELLS = ("bash", "zsh", "fish")
# What the first argument of a command names; everything else is for the shell to complete (files).
_VALUES = {
    "NAME": "targets",
    "NAME…": "targets",
    "ENTRY": "entries",
    "ID": "kernels",
    "ALLOCATION": "allocations",
}
# What an option's value names.
_OPTION_VALUES = {"--preset": "presets"}

HINTS = {
    "bash": 'eval "$(farkernel completion bash)"            # in ~/.bashrc',
    "zsh": 'eval "$(farkernel completion zsh)"             # in ~/.zshrc, after compinit',
    "fish": "farkernel completion fish | source            # in ~/.config/fish/config.fish",
}


def configure_completion(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a script that makes the shell complete commands, options, targets and kernels."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "To have it always:\n  " + "\n  ".join(HINTS.values())
    parser.add_argument("shell", choices=SHELLS, help="whose script")
    parser.add_argument("values", nargs="?", help=argparse.SUPPRESS)


def run_completion(arguments: argparse.Namespace) -> int:
    if arguments.values is not None:
        # The scripts call this for what is not known beforehand.
        for value in values(arguments.values):
            print(value)
        return 0
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](), end="")
    return 0


# -- what there is -----------------------------------------------------------------------------------------


def options(command: Command) -> list[tuple[str, str]]:
    """(option, its help) of a command."""
    if command.name == "launch":
        return [("--connection-file", "the connection file that the front end wrote"), ("--help", "")]
    found = {
        option: "" if action.help in (None, argparse.SUPPRESS) else str(action.help)
        for parser in _parsers(command)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    return list(found.items())


def _parsers(command: Command) -> list[argparse.ArgumentParser]:
    """Its own, then those of what it can do (`board flash`)."""
    parser = Parser(command.name, "")
    module = importlib.import_module(f".{command.module}", __package__)
    if command.name != "launch":
        getattr(module, f"configure_{command.name}")(parser)
    return [parser, *(inner for action in parser._actions for inner in _choices(action).values())]


def _choices(action: argparse.Action) -> dict[str, argparse.ArgumentParser]:
    return dict(action.choices) if isinstance(action, argparse._SubParsersAction) else {}


def words(command: Command) -> list[str]:
    """The fixed words that may come first."""
    first = command.arguments.split(" ")[0].strip("[]")
    if "|" in first:
        return first.split("|")
    return [word for action in _parsers(command)[0]._actions for word in _choices(action)]


def kind(command: Command) -> str:
    """What its first argument names; empty: nothing that we know."""
    return _VALUES.get(command.arguments.split(" ")[0].strip("[]"), "") if command.name != "add" else ""


def values(what: str) -> list[str]:
    """Names that there are now.  A keeper is not started for them, and trouble is no matter here."""
    finders: dict[str, Callable[[], Iterable[str]]] = {
        "targets": _targets,
        "presets": _presets,
        "entries": _entries,
        "kernels": lambda: _held("kernels", "kernel"),
        "allocations": lambda: _held("allocations", "allocation"),
    }
    from ..errors import FarkernelError

    try:
        return sorted(set(finders.get(what, list)()))
    except FarkernelError:
        return []


def _targets() -> Iterable[str]:
    from .. import configuration

    return configuration.load().targets


def _presets() -> Iterable[str]:
    from .. import configuration

    return [preset for target in configuration.load().targets.values() for preset in target.presets]


def _entries() -> Iterable[str]:
    from ...kernelspecs import entries

    return [entry.name for entry in entries.installed()]


def _held(listing: str, key: str) -> Iterable[str]:
    from ..client import KeeperClient

    with KeeperClient(start=False) as client:
        rows = client.request("list", timeout=3.0, all=False).get(listing) or []
    return [str(row.get(key))[: 8 if key == "kernel" else None] for row in rows]


# -- the scripts -------------------------------------------------------------------------------------------

_BASH = """\
# bash completion of farkernel; made by `farkernel completion bash`
_farkernel() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} options= values=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    case ${{COMP_WORDS[COMP_CWORD - 1]}} in
{named}
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    elif [ "$COMP_CWORD" -eq 2 ] && [ -n "$values" ]; then
        case $values in
            =*) values=${{values#=}} ;;
            *) values=$(farkernel completion bash "$values" 2>/dev/null) ;;
        esac
        COMPREPLY=($(compgen -W "$values" -- "$word"))
    fi
}}
complete -o default -F _farkernel farkernel
"""

_ZSH = """\
#compdef farkernel
# zsh completion of farkernel; made by `farkernel completion zsh`
_farkernel() {{
    local -a commands options
    local values
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
{cases}
    esac
    case $words[CURRENT-1] in
{named}
    esac
    if [[ $PREFIX == -* ]]; then
        _describe option options
    elif (( CURRENT == 3 )) && [[ -n $values ]]; then
        if [[ $values == '='* ]]; then  # unquoted, =* would be the path of a command
            compadd -- ${{=values#=}}
        else
            compadd -- $(farkernel completion zsh $values 2>/dev/null)
        fi
    else
        _files
    fi
}}
compdef _farkernel farkernel
"""


def bash() -> str:
    cases = []
    for command in COMMANDS:
        names = " ".join(option for option, _ in options(command))
        cases.append(f"        {command.name}) options='{names}' values='{_source(command)}' ;;")
    named = [
        f'        {option}) COMPREPLY=($(compgen -W "$(farkernel completion bash {what} 2>/dev/null)"'
        ' -- "$word")); return ;;'
        for option, what in _OPTION_VALUES.items()
    ]
    commands = " ".join(command.name for command in COMMANDS)
    return _BASH.format(commands=commands, cases="\n".join(cases), named="\n".join(named))


def zsh() -> str:
    commands = "\n".join(f"        {_quoted(f'{command.name}:{command.summary}')}" for command in COMMANDS)
    cases = []
    for command in COMMANDS:
        described = " ".join(_quoted(f"{option}:{_brief(text)}") for option, text in options(command))
        cases.append(f"        {command.name}) options=({described}); values='{_source(command)}' ;;")
    named = [
        f"        {option}) compadd -- $(farkernel completion zsh {what} 2>/dev/null); return ;;"
        for option, what in _OPTION_VALUES.items()
    ]
    return _ZSH.format(commands=commands, cases="\n".join(cases), named="\n".join(named))


def fish() -> str:
    lines = ["# fish completion of farkernel; made by `farkernel completion fish`"]
    for command in COMMANDS:
        lines.append(
            f"complete -c farkernel -n __fish_use_subcommand -f -a {command.name} -d {_quoted(command.summary)}"
        )
        used = f"'__fish_seen_subcommand_from {command.name}'"
        for option, text in options(command):
            what = _OPTION_VALUES.get(option, "")
            asked = f" -x -a {_quoted(f'(farkernel completion fish {what} 2>/dev/null)')}" if what else ""
            lines.append(f"complete -c farkernel -n {used} -l {option[2:]}{asked} -d {_quoted(_brief(text))}")
        source = _source(command)
        if source.startswith("="):
            lines.append(f"complete -c farkernel -n {used} -f -a {_quoted(source[1:])}")
        elif source:
            asked = _quoted(f"(farkernel completion fish {source} 2>/dev/null)")
            lines.append(f"complete -c farkernel -n {used} -f -a {asked}")
    return "\n".join(lines) + "\n"


def _source(command: Command) -> str:
    """Where the first argument's words come from: `=WORDS`, or the name of a kind of value."""
    fixed = words(command)
    return "=" + " ".join(fixed) if fixed else kind(command)


def _brief(text: str) -> str:
    return text.split(";", maxsplit=1)[0].replace(":", " ")


def _quoted(text: str) -> str:
    """For bash, zsh and fish alike: in single quotes, without any inside."""
    return "'" + text.replace("'", "").replace("\\", "") + "'"
