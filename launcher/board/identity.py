"""What a board is: asked with a number of our own, so that no stale bytes are taken for the answer."""

from __future__ import annotations

import ast
import asyncio
import secrets
from typing import Any

from .contract import BoardInfo
from .conversation import Conversation
from .errors import NotABoard
from .raw_repl import Finished

_DEADLINE = 8.0
_TRIES = 3

# For every firmware from 1.9 on: sys.implementation may be a tuple without names, `os.uname` may be missing, and
# the memory for it may be small.  Leaves nothing behind.
_QUESTION = """\
def _f():
 import sys
 i=sys.implementation
 u=()
 d=b''
 b=False
 for n in('binascii','ubinascii'):
  try:
   __import__(n)
   b=True
  except ImportError:pass
 try:
  from os import uname
  u=tuple(uname())
 except Exception:pass
 try:
  import machine
  d=machine.unique_id()
 except Exception:
  try:
   import microcontroller
   d=microcontroller.cpu.uid
  except Exception:pass
 print('NONCE',repr((i[0],tuple(i[1]),sys.platform,getattr(i,'_mpy',getattr(i,'mpy',-1)),sys.version,u,bytes(d),getattr(i,'_machine',''),b)))
_f()
del _f
"""


async def identify(talk: Conversation) -> BoardInfo:
    """Raises `NotABoard`, `BoardLost`.  The raw REPL must have been entered."""
    seen = b""
    for _ in range(_TRIES):
        nonce = secrets.token_hex(4)
        output = bytearray()
        try:
            async with asyncio.timeout(_DEADLINE):
                event = await talk.run(_QUESTION.replace("NONCE", nonce).encode(), output.extend)
        except TimeoutError:
            event = None
        seen = bytes(output)
        if isinstance(event, Finished) and (info := _parse(seen, nonce, bool(talk.repl.raw_paste))):
            return info
        talk.repl.raw_paste = None
        await talk.enter()
    raise NotABoard(talk.transport.describe(), seen)


def _parse(output: bytes, nonce: str, raw_paste: bool) -> BoardInfo | None:
    _, found, rest = output.decode("utf-8", "replace").partition(nonce + " ")
    if not found:
        return None
    try:
        return read_answer(ast.literal_eval(rest.partition("\r\n")[0]), raw_paste)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def read_answer(answer: Any, raw_paste: bool) -> BoardInfo:
    """From the tuple that the board printed; raises ValueError or TypeError when it makes no sense."""
    name, version, platform, mpy, language, uname, unique_id, machine, base64 = answer
    release = ""
    if len(uname) == 5:
        release, machine = str(uname[3]), str(uname[4])
    title = {"micropython": "MicroPython", "circuitpython": "CircuitPython"}.get(str(name), str(name))
    # Newer ones have the banner's first words in sys.version: "3.4.0; MicroPython v1.25.0 on 2025-04-15".
    words = str(language).partition("; ")[2] or f"{title} {release}"
    mpy = int(mpy)
    return BoardInfo(
        machine=str(machine),
        firmware=f"{words}; {machine}" if machine else words,
        version=tuple(int(part) for part in version[:3]),
        implementation=str(name),
        platform=str(platform),
        raw_paste=raw_paste,
        base64=bool(base64),
        mpy_version=None if mpy < 0 else mpy & 0xFF,
        mpy_arch=0 if mpy < 0 else mpy >> 10,
        unique_id=bytes(unique_id).hex(),
    )
