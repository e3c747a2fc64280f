"""What must be known of a job before anything is done about it: one small file for each allocation.

Crash-only (DESIGN §2): a record is on disk before the job is submitted, and goes when the job is known to be over.  So
a keeper that was killed in between finds every job of its own again, and cancels those that nobody wants any more.
"""

from __future__ import annotations

import enum
import json
import logging
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ...launcher.agent.places import private_directory
from ...launcher.errors import FarkernelError
from ...launcher.keeper.store import StoreError, checked_name, state_directory, write_atomically
from .door_keys import DoorKeys

log = logging.getLogger(__name__)


def journal_directory() -> Path:
    """Beside what the keeper writes down of its kernels; where that cannot be written, a reboot forgets."""
    directory = state_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(private_directory()) / "keeper" / "state" / "jobs"
    return directory / "jobs"


class Phase(enum.Enum):
    """What has been done about a job."""

    SUBMITTING = "submitting"  # it may be there, or not: look for its name
    SUBMITTED = "submitted"  # its id is known
    UNWANTED = "unwanted"  # to be cancelled, whether its id is known or not


@dataclass
class Record:
    """One allocation: ``key`` is the keeper's name for it, ``name`` the job's."""

    key: str
    address: str
    name: str
    job: str = ""
    phase: Phase = Phase.SUBMITTING
    ssh: str = ""  # how the login host is reached, as the target's configuration said (launcher/settings.py)
    ssh_config: str = ""
    created: float = field(default_factory=time.time)
    door: dict[str, str] = field(default_factory=dict, repr=False)  # the fields of its `DoorKeys`

    @classmethod
    def from_dict(cls, found: dict[str, object]) -> Record:
        """Raises `ValueError`, `KeyError` or `FarkernelError` for what is no record."""
        created, door = found.get("created"), found.get("door")
        return cls(
            key=str(found["key"]),
            address=str(found["address"]),
            name=checked_name(found["name"]),
            job=str(found.get("job", "")),
            phase=Phase(found["phase"]),
            ssh=str(found.get("ssh", "")),
            ssh_config=str(found.get("ssh_config", "")),
            created=float(created) if isinstance(created, int | float) else 0.0,
            door={str(name): str(each) for name, each in door.items()} if isinstance(door, dict) else {},
        )

    def door_keys(self) -> DoorKeys | None:
        """None: its job has no door."""
        names = {each.name for each in fields(DoorKeys)}
        return DoorKeys(**self.door) if set(self.door) == names else None


class Journal:
    """All records of this keeper."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, key: str) -> Record | None:
        """The job of that allocation, unless it is not wanted any more."""
        for record in self.load():
            if record.key == key and record.phase is not Phase.UNWANTED:
                return record
        return None

    def load(self) -> list[Record]:
        """Every record; a file that cannot be read is said in the log and left alone."""
        found = []
        for path in sorted(self._directory.glob("[!.]*.json")):
            try:
                found.append(Record.from_dict(json.loads(path.read_bytes())))
            except (OSError, ValueError, KeyError, TypeError, FarkernelError) as error:
                log.error("cannot read %s: %s", path, error)
        return found

    def save(self, record: Record) -> None:
        """Raises `StoreError`."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(self._directory, error) from error
        facts = {**asdict(record), "phase": record.phase.value}
        write_atomically(self._path(record), json.dumps(facts, indent=1).encode())

    def forget(self, record: Record) -> None:
        """The job is over, or was never there."""
        self._path(record).unlink(missing_ok=True)

    def ways(self) -> dict[str, str]:
        """By address of a target: the way by which its last job was entered."""
        try:
            found = json.loads(self._ways.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): str(each) for name, each in found.items()} if isinstance(found, dict) else {}

    def remember_way(self, address: str, way: str) -> None:
        ways = self.ways()
        if ways.get(address) != way:
            try:
                write_atomically(self._ways, json.dumps({**ways, address: way}, indent=1).encode())
            except StoreError as error:
                log.warning("%s; the way into jobs will be looked for again", error)

    @property
    def _ways(self) -> Path:
        return self._directory / ".ways.json"  # no record: `load` passes over what begins with a dot

    def _path(self, record: Record) -> Path:
        return self._directory / f"{checked_name(record.name)}.json"
