"""Grid Engine: qhost(1), qconf(1), qstat(1).

Slots belong to queues and not to hosts, so each queue counts its own; GPUs are a consumable of the hosts (complex(5)).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...launcher.discovery.cluster import Cluster, ClusterProblem, Gpus, Limit, Node, Queue, with_nodes
from ...launcher.text import one_line
from .contract import CannotTell, Command, Job, Said
from .sge import ADAPTER
from .survey import my_job

_TOTALS = "<!-- what the hosts have of consumables -->"
# Load values that nobody here wants stay there.  How many GPUs a host has, and not only how many are left, its
# configuration says; one qconf for all hosts that have any.
_HOSTS = f"""\
said=$(qhost -F -q -xml) || exit
printf '%s\\n' "$said" | grep -Ev "resourcevalue name='((np_)?load|m_|virtual_|swap_|cpu|arch|mem_used)"
options=$(printf '%s\\n' "$said" | awk -F"'" '
  /<host name=/ {{ host = $2 ~ /^[A-Za-z0-9][A-Za-z0-9._-]*$/ && $2 != "global" ? $2 : "" }}
  /<resourcevalue name=/ && tolower($2) ~ /gpu/ && host && !had[host]++ {{ printf "-se %s ", host }}')
[ -z "$options" ] || {{ echo '{_TOTALS}'; qconf $options; }}
"""
_ACCESS = (
    'lists=$(qconf -sul 2>/dev/null | sed \'s/^/-su /\'); [ -z "$lists" ] || qconf $lists; echo "user $(id -un)"; '
    'echo "groups $(id -Gn)"'
)
_GPU = re.compile(r"(?:n|num_?)?gpus?", re.IGNORECASE)
# queue_conf(5) and qstat(1): with one of these an instance starts nothing.
_SHUT = frozenset("uEdDsSCcoaA")


class GridEngineSurveyor:
    """See `survey.Surveyor`."""

    def commands(self) -> Sequence[Command]:
        return [
            Command(("sh", "-c", _HOSTS)),
            Command(("qconf", "-sq", "*")),
            Command(("qconf", "-srqs")),
            Command(("sh", "-c", _ACCESS)),
            *self.mine(),
            Command(("sh", "-c", "qhost -help | head -n 1")),
        ]

    def mine(self) -> Sequence[Command]:
        return ADAPTER.query([])

    def my_jobs(self, said: Sequence[Said]) -> list[Job]:
        return ADAPTER.jobs(said)

    def read(self, said: Sequence[Said]) -> Cluster:
        shown, queues, quotas, access, mine, version = said
        if shown.cut or "</qhost>" not in shown.out:
            raise CannotTell(ADAPTER.title, "it says more than 4 MiB" if shown.cut else shown.complaint)
        problems = [
            ClusterProblem(part, answer.complaint)
            for part, answer in (("queues", queues), ("jobs", mine))
            if answer.status
        ]
        listed, _, configured = shown.out.partition(_TOTALS)
        hosts = list(read_hosts(listed, read_totals(configured)))
        limits, lists = list(read_quotas(quotas.out)), Access(access.out)
        found = [
            with_nodes(
                replace(
                    queue, limits=tuple(limit for names, limit in limits if not names or queue.name in names)
                ),
                [replace(host.instance(queue.name), queues=()) for host in hosts if queue.name in host.slots],
            )
            for queue in read_queues(queues.out, lists)
        ]
        release = re.match(r"\S*GE\S*\s+(\S+)", version.out.strip(), re.IGNORECASE)
        return Cluster(
            scheduler=ADAPTER.title,
            release=one_line(release[1]) if release else None,
            queues=tuple([replace(found[0], default=True)] if len(found) == 1 else found),
            nodes=tuple(host.node for host in hosts),
            jobs=tuple(my_job(ADAPTER, job) for job in ([] if mine.status else self.my_jobs([mine]))),
            problems=tuple(problems),
        )


# -- hosts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slots:
    """Of one queue on one host."""

    total: int
    free: int
    states: str

    @property
    def open(self) -> bool:
        return not set(self.states) & _SHUT


@dataclass(frozen=True)
class Host:
    node: Node
    slots: Mapping[str, Slots]

    def instance(self, queue: str) -> Node:
        """The host as that queue sees it."""
        slots = self.slots[queue]
        free = slots.free if slots.open else 0
        gpus = self.node.gpus if free else tuple(replace(each, free=0) for each in self.node.gpus)
        memory = self.node.memory_free if free else None if self.node.memory_free is None else 0
        return replace(self.node, cpus=slots.total, cpus_free=free, gpus=gpus, memory_free=memory)


def read_hosts(text: str, totals: Mapping[str, Mapping[str, str]]) -> Iterator[Host]:
    """``qhost -F -q -xml``; ``totals``: host → what its configuration says of consumables."""
    for name, block in re.findall(r"<host name='([^']*)'>(.*?)</host>", text, re.DOTALL):
        host = one_line(html.unescape(name))
        if host == "global":
            continue
        values = dict(re.findall(r"<resourcevalue name='([^']*)'[^>]*>([^<]*)<", block))
        slots = dict(_slots(block))
        best = max(slots.values(), key=lambda each: each.free if each.open else -1, default=Slots(0, 0, "u"))
        free = best.free if best.open else 0
        memory, left = size(values.get("mem_total", "")), size(values.get("mem_free", ""))
        node = Node(
            name=host,
            state=_state(best, free),
            word=one_line("".join(sorted(set("".join(each.states for each in slots.values()))))) or None,
            queues=tuple(slots),
            cpus=best.total,
            cpus_free=free,
            memory=memory,
            memory_free=left if free else 0 if memory is not None else None,
            gpus=tuple(_gpus(values, totals.get(host, {}), bool(free))),
        )
        yield Host(node, slots)


def _slots(block: str) -> Iterator[tuple[str, Slots]]:
    for queue, inner in re.findall(r"<queue name='([^']*)'>(.*?)</queue>", block, re.DOTALL):
        values = dict(re.findall(r"name='(\w+)'>([^<]*)<", inner))
        total, used, reserved = (_count(values.get(key, "")) for key in ("slots", "slots_used", "slots_resv"))
        yield (
            one_line(html.unescape(queue)),
            Slots(total, max(total - used - reserved, 0), one_line(values.get("state_string", ""))),
        )


def _state(best: Slots, free: int) -> str:
    if not best.open:
        return "down" if "u" in best.states else "drained"
    if best.total and free == best.total:
        return "idle"
    return "mixed" if free else "allocated"


def _gpus(values: Mapping[str, str], totals: Mapping[str, str], open_: bool) -> Iterator[Gpus]:
    kind = next(
        (one_line(value) for key, value in values.items() if key.lower() in ("gpu_type", "gputype")), None
    )
    for key, value in values.items():
        if _GPU.fullmatch(key) and (left := _number(value)) is not None:
            total = max(_number(totals.get(key, "")) or left, left)
            yield Gpus(kind or None, total, left if open_ else 0)


def read_totals(text: str) -> dict[str, dict[str, str]]:
    """Host → its ``complex_values``, of ``qconf -se``."""
    found: dict[str, dict[str, str]] = {}
    for facts in _configurations(text, "hostname"):
        pairs = (part.partition("=")[::2] for part in facts.get("complex_values", "").split(","))
        found[facts["hostname"]] = {key.strip(): value.strip() for key, value in pairs}
    return found


def _configurations(text: str, first: str) -> Iterator[dict[str, str]]:
    """What qconf(1) shows: a key and its value in each line, ``\\`` at the end of those that go on."""
    facts: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        key, _, value = line.strip().partition(" ")
        if key == first:
            if facts:
                yield facts
            facts = {}
        if key and (facts or key == first):
            facts[key] = one_line(value)
    if facts:
        yield facts


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0


def _number(text: str) -> int | None:
    """Consumables are shown as ``2.000000``."""
    match = re.fullmatch(r"([0-9]{1,9})(?:\.[0-9]*)?", text.strip(), re.ASCII)
    return int(match[1]) if match else None


def size(text: str) -> int | None:
    """sge_types(5), "memory_specifier": ``21.268G``; small letters are powers of 1000."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([KMGTkmgt]?)", text.strip(), re.ASCII)
    if match is None:
        return None
    base = 1000 if match[2].islower() else 1024
    factor: int = base ** " KMGT".index(match[2].upper() or " ")
    return round(float(match[1]) * factor)


# -- queues ------------------------------------------------------------------------------------------------


class Access:
    """Who the user is, and which access lists (access_list(5)) they stand on."""

    def __init__(self, text: str) -> None:
        words = dict(re.findall(r"^(user|groups) (.*)$", text, re.MULTILINE))
        me = {words.get("user", "").strip(), *(f"@{group}" for group in words.get("groups", "").split())} - {
            ""
        }
        lists = {facts["name"]: facts.get("entries", "") for facts in _configurations(text, "name")}
        self.mine = {
            name for name, entries in lists.items() if me & {each.strip() for each in entries.split(",")}
        }
        self.known = set(lists)


def read_queues(text: str, access: Access) -> Iterator[Queue]:
    for facts in _configurations(text, "qname"):
        if "BATCH" not in facts.get("qtype", "BATCH").upper():
            continue
        allowed, barred = _names(facts.get("user_lists", "")), _names(facts.get("xuser_lists", ""))
        queue = Queue(
            name=facts["qname"],
            open=facts.get("initial_state", "default") != "disabled",
            usable=True,
            time_limit=_least(seconds(facts.get("h_rt", "")), seconds(facts.get("s_rt", ""))),
            groups=allowed,
        )
        if allowed and access.known and not access.mine & set(allowed):
            queue = replace(queue, usable=False, why=f"only for the access lists {', '.join(allowed)}")
        if set(barred) & access.mine:
            queue = replace(queue, usable=False, why=f"not for the access lists {', '.join(barred)}")
        yield queue


def _names(text: str) -> tuple[str, ...]:
    """Of the queue as a whole; what holds for some hosts only stands in brackets behind it."""
    plain = re.sub(r",?\[[^\]]*\]", "", text).strip()
    return () if plain.upper() in ("", "NONE") else tuple(each for each in re.split(r"[,\s]+", plain) if each)


def seconds(text: str) -> int | None:
    """sge_types(5), "time_specifier": ``0:0:20``, ``3600``, ``INFINITY``."""
    plain = re.sub(r",?\[[^\]]*\]", "", text).strip()
    match = re.fullmatch(r"(?:([0-9]{1,9}):([0-9]{1,9}):)?([0-9]{1,12})", plain, re.ASCII)
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + int(match[3]) if match else None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


_WHAT = {"slots": "cpus", "mem_free": "memory", "h_vmem": "memory", "num_proc": "cpus"}


def read_quotas(text: str) -> Iterator[tuple[tuple[str, ...], Limit]]:
    """sge_resource_quota(5): the queues that it is about (none: all), and the limit.  ``{*}``: for each by itself."""
    for name, inside in re.findall(r"\{\s*name\s+(\S+)(.*?)\n\}", text, re.DOTALL):
        if re.search(r"enabled\s+FALSE", inside, re.IGNORECASE):
            continue
        for rule in re.findall(r"limit\s+(.*)", inside):
            about, _, wanted = rule.rpartition(" to ")
            queues = re.search(r"queues\s+(\S+)", about)
            names = () if queues is None or "*" in queues[1] else tuple(queues[1].strip("{}").split(","))
            whom = "user" if re.search(r"users\s+\{", about) else "all"
            for part in wanted.split(","):
                key, _, value = part.strip().partition("=")
                most = size(value)
                if most is not None:
                    what = "gpus" if _GPU.fullmatch(key) else _WHAT.get(key, one_line(key))
                    yield names, Limit(whom, what, most, f"quota {one_line(name)}")


SURVEYOR = GridEngineSurveyor()
