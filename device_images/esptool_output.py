"""What esptool (4 and 5) prints, made into facts and errors; sans-I/O."""

from __future__ import annotations

import re
from collections import deque

from ..launcher.board.errors import BoardBusy, BoardGone, BoardPermission
from ..launcher.errors import FarkernelError
from ..launcher.text import clean
from .flash_errors import BoardVanished, EsptoolFailed, NotInBootMode, UnknownChip, VerifyFailed, WriteFailed

_UNITS = {"KB": 1 << 10, "MB": 1 << 20}
_FACTS = (
    ("chip", re.compile(r"(?:Detecting chip type\.\.\. |Connected to )(ESP\S+)(?: on |$)")),
    ("mac", re.compile(r"MAC: +([0-9a-f:]{17,})$")),
    ("flash", re.compile(r"Detected flash size: +(\d+[KM]B)$")),
)
_PERCENT = re.compile(r"Writing at (0x[0-9a-f]+)\b.*?(\d+)(?:\.\d+)? ?%")
_FATAL = re.compile(r"A (?:fatal error|serial exception error) occurred: ?(.*)")

# Beginnings of what follows "A fatal error occurred:", and of pySerial's words.
_NO_SYNC = re.compile(r"Failed to connect to|Failed to start stub flasher|No serial data received")
_GONE = re.compile(
    r"chip stopped responding|No more data to read|device reports readiness|device disconnected"
    r"|Invalid head of packet|Packet content transfer stopped|Response doesn't match|Input/output error|Connection"
    r"|Failed to .*(?:Only got|Timed out)|timed out",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"Failed to (?:write|erase|enter)[^.]*|Write failed|Flash write error|Failed SPI operation"
)
_DIFFERENT = re.compile(r"MD5 of file does not match|written flash region is empty|Verification failed")


class EsptoolOutput:
    """Fed with the lines of one run."""

    def __init__(self, port: str) -> None:
        self.port = port
        self.chip: str | None = None  # as `esp_image.CHIPS` names it
        self.mac: str | None = None
        self.flash_size: int | None = None
        self.percent: int | None = None  # of what is written
        self.verified = False
        self._said: list[str] | None = None  # from the error on
        self._last: deque[str] = deque(maxlen=3)

    def feed(self, line: str) -> int | None:
        """The percentage, if the line shows progress."""
        line = clean(line).strip()
        if not line:
            return None
        self._last.append(line)
        if self._said is not None:
            self._said.append(line)
        elif found := _FATAL.search(line):
            self._said = [found[1]]
        elif found := _PERCENT.match(line):
            self.percent = min(int(found[2]), 100)
            return self.percent
        elif line == "Hash of data verified.":
            self.verified = True
        else:
            self._note(line)
        return None

    def _note(self, line: str) -> None:
        for name, pattern in _FACTS:
            if found := pattern.search(line):
                if name == "chip":
                    self.chip = found[1].lower().replace("-", "")
                elif name == "mac":
                    self.mac = found[1]
                else:
                    self.flash_size = int(found[1][:-2]) * _UNITS[found[1][-2:]]

    def failure(self, status: int, group: str = "", holder: str = "") -> FarkernelError:
        """Why it ended with that status.  `group`: of the device; `holder`: who else has it open."""
        said = " ".join(self._said if self._said is not None else self._last)
        if "Could not open" in said:
            return self._not_opened(said, group, holder)
        if _DIFFERENT.search(said):
            return VerifyFailed(self.port)
        if "chip magic value" in said or "chip ID value" in said:
            return UnknownChip(self.port)
        if self.percent is None and self.mac is None and (_NO_SYNC.search(said) or _GONE.search(said)):
            return NotInBootMode(self.port, holder)
        if self._said is None and self.percent is not None and "Error" not in said:
            # Over RFC2217 it ends without a word, having tried to reset a board that is not there.
            return BoardVanished(self.port, self.percent)
        if _GONE.search(said) or _NO_SYNC.search(said):
            return BoardVanished(self.port, self.percent)
        if _REFUSED.search(said):
            return WriteFailed(self.port, said)
        return EsptoolFailed(self.port, status, said)

    def _not_opened(self, said: str, group: str, holder: str) -> FarkernelError:
        if "Permission denied" in said or "Errno 13" in said:
            return BoardPermission(self.port, group)
        if "exclusively lock" in said or "Errno 16" in said or "busy" in said.partition("doesn't exist")[2]:
            return BoardBusy(self.port, holder)
        return BoardGone(self.port, "" if "Errno 2]" in said else said.partition("(")[2].partition(")")[0])
