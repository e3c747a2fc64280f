"""`farkernel install`, `uninstall`: menu entries."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ...backends.archive import cache_directory, stored_archive
from ...kernelspecs import entries, logos, offers
from ...kernelspecs.offers import Offer
from .. import configuration
from ..agent import scans, specs
from ..agent.problems import Problem
from ..configuration import Target
from ..errors import FarkernelError
from .arguments import add_json
from .asking import Asking
from .output import emit, say

LOOK_DEADLINE = 10.0
SCAN_DEADLINE = 90.0
# Where a look costs nothing; a queue would have to give us a node for it.
_LOOKED_AT = frozenset({"local", "ssh"})


class OneNameForMany(FarkernelError):
    kind = "usage"

    def __init__(self, option: str) -> None:
        super().__init__(
            f"{option} cannot be used together with --all", "Install that kernel by itself: --kernel"
        )


def configure_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a target")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--kernel",
        metavar="K",
        help="a kernelspec there, or an environment by its name or path, instead of the target's own choice",
    )
    which.add_argument(
        "--all", action="store_true", help="every kernel that `farkernel scan` finds, as NAME-KERNEL"
    )
    parser.add_argument(
        "--preset",
        metavar="PRESET",
        help="with what [targets.NAME.presets.PRESET] of the configuration says; the entry is called NAME-PRESET",
    )
    parser.add_argument("--no-scan", action="store_true", help="do not look there whether the kernel exists")
    parser.add_argument(
        "--as", dest="entry", metavar="ENTRY", help="the menu entry's name, if not the target's"
    )
    parser.add_argument("--display-name", metavar="D", help="what the menu shows")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--user", dest="where", action="store_const", const="user", help="for you (the default)"
    )
    place.add_argument(
        "--sys-prefix",
        dest="where",
        action="store_const",
        const="sys-prefix",
        help="for this Python environment",
    )
    place.add_argument(
        "--system", dest="where", action="store_const", const="system", help="for every user here"
    )
    place.add_argument("--prefix", metavar="P", help="below P/share/jupyter")
    add_json(parser)


def run_install(arguments: argparse.Namespace) -> int:
    target = configuration.load().target(arguments.name)
    if arguments.all:
        return _install_all(arguments, target)
    name = arguments.entry or base_name(arguments)
    offer = _looked_up(arguments, target) if arguments.kernel and not arguments.no_scan else None
    if offer is None:
        settings = {"kernel": arguments.kernel} if arguments.kernel else {}
        kernel = arguments.kernel or target.kernel
        address = str(target.address)
        shown = arguments.display_name or entries.default_display_name(
            arguments.entry or arguments.name, kernel, address, arguments.preset
        )
        made = _install(arguments, target, name, shown, entries.guess_language(kernel, address), settings)
    else:
        made = _install(arguments, target, name, *_of_offer(arguments, target, offer))
    _tell(arguments, made)
    return 0


def _install_all(arguments: argparse.Namespace, target: Target) -> int:
    for option, given in (("--as", arguments.entry), ("--display-name", arguments.display_name)):
        if given:
            raise OneNameForMany(option)
    found = offers.offers(_scan(arguments.name))
    if not found:
        raise offers.NoSuchOffer(arguments.name, "any", ())
    made = [
        _install(
            arguments, target, f"{base_name(arguments)}-{offer.name}", *_of_offer(arguments, target, offer)
        )
        for offer in found
    ]
    if arguments.json:
        emit(made)
    else:
        for each in made:
            _tell(arguments, each)
    return 0


def base_name(arguments: argparse.Namespace) -> str:
    return f"{arguments.name}-{arguments.preset}" if arguments.preset else str(arguments.name)


def _looked_up(arguments: argparse.Namespace, target: Target) -> Offer | None:
    """None: it could not be looked up, which is said; the name is taken as it is then."""
    if target.address.scheme not in _LOOKED_AT:
        return None
    try:
        found = _scan(arguments.name)
    except FarkernelError as error:
        say(f"Not looked up there: {error.what}.")
        return None
    return offers.pick(arguments.name, found, arguments.kernel)


def _scan(name: str) -> dict[str, Any]:
    with Asking() as client:
        return client.request("scan", SCAN_DEADLINE, target=name)


def _of_offer(arguments: argparse.Namespace, target: Target, offer: Offer) -> tuple[str, str, dict[str, Any]]:
    preset = f" · {arguments.preset}" if arguments.preset else ""
    shown = arguments.display_name or f"{target.name} · {offer.display_name}{preset}"
    return shown, offer.language or "python", offer.settings


def _install(
    arguments: argparse.Namespace,
    target: Target,
    name: str,
    display_name: str,
    language: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    preset = {"preset": arguments.preset} if arguments.preset else {}
    settings = {"target": arguments.name, **preset, **settings}
    configuration.load().resolve(settings, name)  # what cannot be used is told now, and not in a notebook
    spec = entries.build(name, display_name, language, settings)
    data = entries.data_directory(arguments.where or "user", arguments.prefix)
    kind = logos.kind_of(str(target.address))
    pictures = logos.files(kind, str(spec["language"]), own_logos(target, arguments.kernel, kind))
    directory = entries.install(name, spec, data, pictures)
    # A first kernel need not wait for what takes a quarter of a second to make.
    stored_archive(cache_directory())
    return {"entry": entries.check_name(name), "directory": directory, "spec": spec}


def _tell(arguments: argparse.Namespace, made: dict[str, Any]) -> None:
    if arguments.json:
        emit(made)
    else:
        say(f"{made['spec']['display_name']} is in the menu ({made['directory']}).")


def own_logos(target: Target, kernel: str | None, kind: str) -> dict[str, bytes]:
    """Those of the kernel's own kernelspec; none where it cannot be asked now (nothing is queued for a picture)."""
    if kind not in ("local", "host") or (target.python and not kernel):
        return {}
    try:
        if kind == "local":
            spec = specs.find(kernel or target.kernel or "python3", os.environ)
            return logos.decoded(scans.logos(spec.directory))
        with Asking(start=False) as client:  # a picture is not worth a keeper
            answer = client.request("look", LOOK_DEADLINE, target=target.name, kernel=kernel)
        return logos.decoded(answer.get("logos"))
    except (FarkernelError, Problem):
        return {}


def configure_uninstall(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "entry", metavar="ENTRY", help="as `farkernel list` and `jupyter kernelspec list` show it"
    )
    add_json(parser)


def run_uninstall(arguments: argparse.Namespace) -> int:
    directories = entries.uninstall(arguments.entry)
    if arguments.json:
        emit({"entry": arguments.entry, "directories": directories})
    else:
        for directory in directories:
            say(f"{directory} is removed.")
    return 0
