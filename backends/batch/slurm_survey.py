"""Slurm: sinfo(1), scontrol(1), squeue(1), sacctmgr(1); text and not JSON, which differs by release and build."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...launcher.discovery.cluster import Account, Cluster, ClusterProblem, Gpus, Limit, Node, Queue
from ...launcher.text import one_line
from . import slurm
from .contract import CannotTell, Command, Job, Said
from .survey import my_job, with_sums

MIB = 1 << 20
_JOBS = ("squeue", "--noheader", "--me", f"--format={slurm.FIELDS}")

# The columns of -O are as wide as they are told to be, and what is longer is cut; the blanks need not travel.
_USED = "sinfo --noheader --Node --Format=NodeList:64,AllocMem:20,GresUsed:256"
# One line for each partition and state, however many jobs there are.
_COUNTS = "squeue --noheader --all --states=PENDING,RUNNING --format='%P|%T'"
_ACCOUNTS = (
    'sacctmgr --noheader --parsable2 --readonly show associations user="$(id -un)" '
    "format=Account,Partition,QOS,DefaultQOS,MaxJobs,MaxSubmitJobs,MaxWall,MaxTRES,GrpTRES"
)
_QOS = (
    "sacctmgr --noheader --parsable2 --readonly show qos "
    "format=Name,MaxWall,MaxJobsPU,MaxSubmitJobsPU,MaxTRESPU,MaxTRES,GrpTRES"
)


def _shell(command: str, then: str = "cat") -> Command:
    """The command's own status, though another one has the last word on what it says."""
    return Command(("sh", "-c", f"said=$({command}) || exit; printf '%s\\n' \"$said\" | {then}"))


class SlurmSurveyor:
    """See `survey.Surveyor`."""

    def commands(self) -> Sequence[Command]:
        return [
            Command(("sinfo", "--noheader", "--Node", "--all", "--format=%N|%R|%T|%C|%m|%G|%f")),
            _shell(_USED, "tr -s ' '"),
            Command(("scontrol", "--oneliner", "--all", "show", "partition")),
            _shell(_COUNTS, "sort | uniq -c"),
            *self.mine(),
            Command(("sh", "-c", _ACCOUNTS)),
            Command(("sh", "-c", _QOS)),
            Command(("id", "-Gn")),
            Command(("sinfo", "--version")),
        ]

    def mine(self) -> Sequence[Command]:
        return [Command(_JOBS, environment=slurm.EPOCH)]

    def my_jobs(self, said: Sequence[Said]) -> list[Job]:
        return slurm.ADAPTER.jobs(said)

    def read(self, said: Sequence[Said]) -> Cluster:
        listed, used, partitions, counts, mine, associations, qos, groups, version = said
        if listed.status or listed.cut:
            raise CannotTell(
                slurm.ADAPTER.title, "it says more than 4 MiB" if listed.cut else listed.complaint
            )
        problems = []
        for part, answer in (("use of nodes", used), ("partitions", partitions), ("jobs", mine)):
            if answer.status:
                problems.append(ClusterProblem(part, answer.complaint))
        limits = dict(read_qos(qos.out)) if not qos.status else {}
        accounts = tuple(read_accounts(associations.out)) if not associations.status else None
        nodes = tuple(read_nodes(listed.out, used.out if not used.status else ""))
        busy = read_counts(counts.out) if not counts.status else None
        queues = [
            _judged(_busy(queue, busy), accounts, groups.out.split())
            for queue in read_partitions(partitions.out, limits)
        ] or [Queue(name) for name in dict.fromkeys(name for node in nodes for name in node.queues)]
        jobs = [] if mine.status else self.my_jobs([mine])
        found = Cluster(
            scheduler=slurm.ADAPTER.title,
            release=one_line(version.out).rpartition(" ")[2] or None,
            queues=tuple(queues),
            nodes=nodes,
            accounts=None if accounts is None else tuple(_with_qos(each, limits) for each in accounts),
            jobs=tuple(my_job(slurm.ADAPTER, job) for job in jobs),
            problems=tuple(problems),
        )
        return with_sums(found)


# -- nodes -------------------------------------------------------------------------------------------------

# sinfo(1), NODE STATE CODES; what is not here may not be used now.
_STATES = {
    "idle": "idle",
    "mixed": "mixed",
    "allocated": "allocated",
    "completing": "mixed",
    "planned": "idle",
    "reserved": "reserved",
    "draining": "drained",
    "drained": "drained",
}
_DOWN = ("down", "fail", "error", "unknown", "future", "no_respond", "not_responding", "perfctrs", "blocked")
# "~" is asleep and "#" waking up: such nodes are there for who asks.  "*" does not respond.
_ASLEEP = "~#%^!"
_FREE = frozenset({"idle", "mixed"})
_GPU = re.compile(r"(?:^|,)gpu:(?:([A-Za-z][\w.-]*|[0-9][\w.-]*(?=:)):)?([0-9]{1,6})(?:\([^)]*\))?")


def read_nodes(listed: str, used: str) -> Iterator[Node]:
    """Each node once, though each of its partitions has a line for it."""
    taken = dict(_taken(used))
    found: dict[str, Node] = {}
    for line in listed.splitlines():
        fields = line.split("|", 6)
        if len(fields) != 7:
            continue
        name, partition = one_line(fields[0]), one_line(fields[1])
        node = found.get(name) or _node(fields, *taken.get(name, (None, {})))
        found[name] = replace(node, queues=(*node.queues, partition))
    yield from found.values()


def _node(fields: Sequence[str], memory_used: int | None, gpus_used: dict[str | None, int]) -> Node:
    name, _, word, cpus, memory, gres, features = fields
    state = node_state(word)
    counts = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})/([0-9]{1,7})/([0-9]{1,7})", cpus.strip(), re.ASCII)
    total = _number(memory)
    open_ = state in _FREE
    left = None if total is None or memory_used is None else max(total - memory_used, 0)
    return Node(
        name=one_line(name),
        state=state,
        word=one_line(word) or None,
        cpus=int(counts[4]) if counts else None,
        cpus_free=None if not counts else int(counts[2]) if open_ else 0,
        memory=None if total is None else total * MIB,
        memory_free=None if left is None else left * MIB if open_ else 0,
        gpus=tuple(
            Gpus(kind, count, max(count - gpus_used.get(kind, 0), 0) if open_ else 0)
            for kind, count in read_gres(gres).items()
        ),
        features=() if features in ("(null)", "") else tuple(map(one_line, features.split(",")))[:50],
    )


def node_state(word: str) -> str:
    """From sinfo's word, with the marks behind it: "mixed-", "idle~", "down*"."""
    plain = word.strip().lower().rstrip("*~#!%$@^-+")
    if "*" in word or plain.startswith(_DOWN) or any(mark in word for mark in "$@"):
        return "down"
    if any(mark in word for mark in _ASLEEP) and plain == "down":
        return "down"
    return _STATES.get(plain, "unknown")


def _taken(used: str) -> Iterator[tuple[str, tuple[int | None, dict[str | None, int]]]]:
    """Node → memory (MiB) and GPUs that jobs have."""
    for line in used.splitlines():
        words = line.split()
        if len(words) >= 2:
            yield one_line(words[0]), (_number(words[1]), read_gres(",".join(words[2:])))


def read_gres(text: str) -> dict[str | None, int]:
    """``gpu:a100:2(S:0-1),gpu:1`` → how many by type; also as used: ``gpu:a100:1(IDX:0)``."""
    counts: dict[str | None, int] = {}
    for kind, count in _GPU.findall(text):
        counts[kind or None] = counts.get(kind or None, 0) + int(count)
    return counts


def _number(text: str) -> int | None:
    match = re.fullmatch(r"\s*([0-9]{1,15})\+?\s*", text, re.ASCII)
    return int(match[1]) if match else None


# -- partitions ----------------------------------------------------------------------------------------------


def read_partitions(text: str, qos: dict[str, tuple[Limit, ...]]) -> Iterator[Queue]:
    for line in text.splitlines():
        facts = dict(re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", line))
        if not facts.get("PartitionName"):
            continue
        state = one_line(facts.get("State", ""))
        limits = list(qos.get(facts.get("QoS", ""), ()))
        if (nodes := _number(facts.get("MaxNodes", ""))) is not None:
            limits.append(Limit("job", "nodes", nodes))
        if (cpus := _number(facts.get("MaxCPUsPerNode", ""))) is not None:
            limits.append(Limit("node", "cpus", cpus))
        yield Queue(
            name=one_line(facts["PartitionName"]),
            default=facts.get("Default") == "YES",
            open=state == "UP" if state else None,
            why=None if state in ("UP", "") else f"it is {state.lower()}",
            time_limit=seconds(facts.get("MaxTime", "")),
            time_default=seconds(facts.get("DefaultTime", "")),
            groups=_allowed(facts.get("AllowGroups", "")),
            accounts=_allowed(facts.get("AllowAccounts", "")),
            qos=_allowed(facts.get("AllowQos", "")),
            limits=tuple(limits),
        )


def _allowed(text: str) -> tuple[str, ...]:
    return () if text.upper() in ("", "ALL", "N/A", "(NULL)") else tuple(map(one_line, text.split(",")))


def _judged(queue: Queue, accounts: tuple[Account, ...] | None, groups: Sequence[str]) -> Queue:
    """Whether the user may use it, where a list tells that."""
    if queue.groups and groups and not set(queue.groups) & set(groups):
        return replace(queue, usable=False, why=f"only for the groups {', '.join(queue.groups)}")
    if queue.accounts and accounts is not None:
        mine = {each.name for each in accounts if each.queue in (None, queue.name)}
        if not mine & set(queue.accounts):
            return replace(queue, usable=False, why=f"only for the accounts {', '.join(queue.accounts)}")
    return replace(queue, usable=True)


def seconds(text: str) -> int | None:
    """``1-12:00:00``, ``04:00:00``, ``30:00`` (minutes), ``UNLIMITED``; as scontrol and sacctmgr write times."""
    match = re.fullmatch(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{2})", text, re.ASCII)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def read_counts(text: str) -> dict[str, Counter[str]]:
    """Partition → how many jobs in which state, from ``uniq -c``."""
    found: dict[str, Counter[str]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*([0-9]{1,9})\s+([^|]+)\|([A-Z]+)", line, re.ASCII)
        if match:
            for partition in match[2].split(","):  # a job that waits may be in several
                found.setdefault(one_line(partition), Counter())[match[3]] += int(match[1])
    return found


def _busy(queue: Queue, counts: dict[str, Counter[str]] | None) -> Queue:
    if counts is None:
        return queue
    mine = counts.get(queue.name, Counter())
    return replace(queue, running=mine["RUNNING"], waiting=mine["PENDING"])


# -- accounts ------------------------------------------------------------------------------------------------


def read_accounts(text: str) -> Iterator[Account]:
    """Associations of the user (sacctmgr(1), ``show associations``)."""
    for line in text.splitlines():
        fields = [one_line(field) for field in line.split("|")]
        if len(fields) != 9 or not fields[0]:
            continue
        name, partition, qos, default_qos, jobs, submit, wall, tres, group = fields
        names = [each for each in qos.split(",") if each]
        if default_qos in names:
            names.insert(0, names.pop(names.index(default_qos)))
        limits = _limits("user", name, {"jobs": jobs, "submit": submit}) + _limits(
            "job", name, {"time": wall}
        )
        limits += _tres("job", name, tres) + _tres("user", name, group)
        yield Account(name, partition or None, None, tuple(names), tuple(limits))


def read_qos(text: str) -> Iterator[tuple[str, tuple[Limit, ...]]]:
    """QOS → its limits (sacctmgr(1), ``show qos``)."""
    for line in text.splitlines():
        fields = [one_line(field) for field in line.split("|")]
        if len(fields) != 7 or not fields[0]:
            continue
        name, wall, jobs, submit, user, job, group = fields
        source = f"QOS {name}"
        limits = _limits("user", source, {"jobs": jobs, "submit": submit})
        limits += _limits("job", source, {"time": wall})
        limits += _tres("user", source, user) + _tres("job", source, job) + _tres("all", source, group)
        yield name, tuple(limits)


def _with_qos(account: Account, qos: dict[str, tuple[Limit, ...]]) -> Account:
    """With the limits of the QOS that its jobs have if they name none."""
    return replace(account, limits=(*account.limits, *(qos.get(account.qos[0], ()) if account.qos else ())))


_WHAT = {"jobs": "jobs", "submit": "waiting"}


def _limits(whom: str, source: str, values: dict[str, str]) -> list[Limit]:
    found = []
    for key, value in values.items():
        most = seconds(value) if key == "time" else _number(value)
        if most is not None:
            found.append(Limit(whom, _WHAT.get(key, key), most, source))
    return found


_SIZES = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1 << 20, "P": 1 << 30}
_TRES = {"cpu": "cpus", "mem": "memory", "node": "nodes", "gres/gpu": "gpus"}


def _tres(whom: str, source: str, text: str) -> list[Limit]:
    """``cpu=64,gres/gpu:a100=2,mem=100G`` (memory without a unit: MiB)."""
    found = []
    for name, value, unit in re.findall(r"(?:^|,)([\w/:.-]+)=([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGTP]?)", text):
        what = _TRES.get(name, name.removeprefix("gres/gpu:") if name.startswith("gres/gpu:") else "")
        if what == "memory":
            found.append(Limit(whom, what, float(value) * _SIZES[unit] * MIB, source))
        elif what:
            found.append(Limit(whom, what, float(value), source))
    return found


SURVEYOR = SlurmSurveyor()
