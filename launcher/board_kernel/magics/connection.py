"""Connecting, resetting, several boards."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from ...address import Address, AddressError, parse_address
from ...board.contract import SerialOptions
from ...board.errors import BoardException
from ...board.password import password_from
from ...board.ports import list_ports
from ...configuration import UnknownTarget
from ...configuration import load as load_configuration
from ...errors import FarkernelError
from ...text import one_line
from ..context import Context
from ..errors import CellFailed, MagicUsage, NoBoard, NoClock, NotConnectedHere
from ..held import PATIENCE, HeldBoard
from ..outputs import LinePrefix
from ..running import NoAnswer
from ..usage import Arguments

_SCHEMES = ("serial", "webrepl")


@dataclass(frozen=True)
class Place:
    """Where a board is, and how it is opened."""

    name: str
    address: Address
    options: SerialOptions = field(default_factory=SerialOptions)
    password_command: tuple[str, ...] = ()


def place_of(text: str) -> Place:
    """From a device, an address, or a target's name.  Raises `NotConnectedHere`, `ConfigurationError`."""
    if text.startswith("/"):
        text = f"serial://{text}"
    try:
        address = parse_address(text)
    except AddressError:
        return _target(text)
    if address.scheme not in _SCHEMES:
        raise NotConnectedHere(text)
    return Place((address.path or address.host or "board").rstrip("/").rpartition("/")[2], address)


def _target(name: str) -> Place:
    try:
        target = load_configuration().target(name)
    except UnknownTarget:
        raise NotConnectedHere(name) from None
    if target.address.scheme not in _SCHEMES:
        raise NotConnectedHere(name)
    options = SerialOptions(target.baud, target.dtr, target.rts)
    return Place(name, target.address, options, target.password_command)


async def password_for(context: Context, place: Place) -> str:
    """Of a WebREPL: from the target's command, or asked for."""
    if place.password_command:
        return await asyncio.to_thread(password_from, place.password_command)
    if place.address.scheme != "webrepl":
        return ""
    try:
        return await context.ask(f"Password of the WebREPL at {place.address.host}: ", True)
    except NoAnswer:
        return ""


async def connect(context: Context, arguments: Arguments) -> None:
    boards = context.boards
    given = arguments.one("ADDRESS")
    patience = _seconds(arguments, "--wait", PATIENCE)
    if not given and not len(boards):
        raise MagicUsage("no board is known yet, so an address is needed", "connect", "ADDRESS")
    former, known = boards.present, boards.names
    if given:
        await _hold(context, arguments, place_of(given))
    held = context.held
    held.patience = patience
    held.in_bootloader = False
    try:
        await held.ready(context.notice)
    except BaseException:
        if former is not None and held.name not in known:  # the cells to come go where they went before
            await boards.remove(held.name)
            boards.choose(former.name)
        raise
    context.say(f"Connected to {held.describe()}")


async def _hold(context: Context, arguments: Arguments, place: Place) -> None:
    """Make it the present board; one that is held already, in the same way, stays as it is."""
    name = arguments.option("--as", place.name)
    options = replace(place.options, baud=_number(arguments, "--baud", place.options.baud))
    former = next((held for held in context.boards if held.name == name), None)
    if former is None or (former.address, former.options) != (place.address, options):
        password = await password_for(context, place)
        if former is not None:
            await context.boards.remove(name)
        patience = _seconds(arguments, "--wait", PATIENCE)
        context.boards.add(name, place.address, options, password, patience, arguments.flag("--resume"))
    context.boards.choose(name)


def _number(arguments: Arguments, name: str, default: int) -> int:
    text = arguments.option(name, str(default))
    if not text.isdecimal() or not 0 < int(text) < 100_000_000:
        raise MagicUsage(f"{name} needs a number, not {text!r}", "connect", "[--baud N] ADDRESS")
    return int(text)


def _seconds(arguments: Arguments, name: str, default: float) -> float:
    return float(_number(arguments, name, int(default)))


async def disconnect(context: Context, arguments: Arguments) -> None:
    name = arguments.one("NAME")
    held = context.boards.named(name) if name else context.held
    await held.release(reset=False)
    await context.boards.remove(held.name)
    context.say(f"{held.name} is free for others: {held.where}. %connect {held.address} takes it again.")


async def reset(context: Context, arguments: Arguments) -> None:
    chosen = [each for each in ("--soft", "--hard", "--bootloader") if arguments.flag(each)]
    if len(chosen) > 1:
        raise MagicUsage("choose one kind of reset", "reset", "[--soft] [--hard] [--bootloader]")
    held = await context.ready()
    kind = chosen[0] if chosen else "--soft"
    if kind == "--soft":
        await held.board.soft_reset(lambda data: context.output.write(data.decode("utf-8", "replace")))
        held.forgotten()
        context.say(f"{held.name} has a fresh interpreter.")
    elif kind == "--hard":
        info = await held.board.hard_reset()
        held.forgotten()
        context.say(f"{held.name} was reset and is back: {one_line(info.machine)}, {one_line(info.firmware)}")
    else:
        await held.bootloader()
        context.say(
            f"{held.name} is in its bootloader: `farkernel board flash` can write to it. Its reset button ends that; "
            "then %connect takes it up again."
        )


async def board(context: Context, arguments: Arguments) -> None:
    if arguments.body is None:
        await _list_or_choose(context, arguments.many("NAME"))
    else:
        await _on_several(context, arguments)


async def _list_or_choose(context: Context, names: list[str]) -> None:
    if len(names) > 1:
        raise MagicUsage("one board can be the present one", "board", "[NAME]")
    if names:
        context.boards.choose(names[0])
    present = context.boards.present
    if present is None:
        raise NoBoard
    for held in context.boards:
        context.say(("* " if held is present else "  ") + held.describe())


async def _on_several(context: Context, arguments: Arguments) -> None:
    """The body on each of them, at the same time; every line says whose it is."""
    names = arguments.many("NAME")
    chosen = context.boards.names if names == ["all"] else names
    held = [context.boards.named(name) for name in dict.fromkeys(chosen)]
    if not held:
        raise NoBoard if names == ["all"] else MagicUsage("%%board needs names, or all", "board", "NAME…")
    if len(held) == 1:
        await context.on(held[0]).run(arguments.body or "", arguments.line)
        return
    width = max(len(each.name) for each in held)
    runs = [_on_one(context, each, width, arguments) for each in held]
    failed = [failure for failure in await asyncio.gather(*runs) if failure is not None]
    if failed:
        raise failed[0]


async def _on_one(
    context: Context, held: HeldBoard, width: int, arguments: Arguments
) -> CellFailed | FarkernelError | None:
    prefix = f"{held.name:{width}} │ "
    with context.filtered(LinePrefix(prefix)) as own:
        try:
            await own.on(held).run(arguments.body or "", arguments.line)
        except CellFailed as error:
            context.notice("\n".join(prefix + line for line in error.lines))
            return error
        except FarkernelError as error:
            context.notice(f"{prefix}{error}")
            return error
    return None


async def ports(context: Context, arguments: Arguments) -> None:
    found = list_ports()
    if not found:
        context.say("No serial device is plugged in here.")
    for port in found:
        what = port.kind or port.description or "a serial device"
        holder = f" (in use by {one_line(port.holder)})" if port.holder else ""
        context.say(f"{port.address or port.device}  {one_line(what)}{holder}")


async def resume(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    context.say(f"Connected to {held.describe()}; nothing was reset.")


async def rtc(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    try:
        if arguments.flag("--set"):
            now = time.localtime()
            value = (
                now.tm_year,
                now.tm_mon,
                now.tm_mday,
                now.tm_wday,
                now.tm_hour,
                now.tm_min,
                now.tm_sec,
                0,
            )
            await held.board.evaluate(f"__import__('machine').RTC().datetime({value!r})")
        said = await held.board.evaluate("__import__('machine').RTC().datetime()")
    except BoardException as error:
        if error.exception in ("AttributeError", "ImportError"):
            raise NoClock(held.where) from None
        raise
    context.say(str(said))


async def info(context: Context, arguments: Arguments) -> None:
    held = await context.ready()
    facts = held.info
    if facts is None:
        raise NoBoard(held.name, context.boards.names)
    rows = {
        "Name": held.name,
        "Address": str(held.address),
        "Machine": facts.machine,
        "Firmware": facts.firmware,
        "Platform": facts.platform,
        "Unique id": facts.unique_id,
        "Raw paste": "yes" if facts.raw_paste else "no",
        ".mpy version": "none" if facts.mpy_version is None else str(facts.mpy_version),
        "Free memory": f"{await held.free_memory():,} bytes",
    }
    for name, value in rows.items():
        if value:
            context.say(f"{name + ':':14}{one_line(value)}")
