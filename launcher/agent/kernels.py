"""One kernel as the worker sees it: its process, its sockets, what is on the disk about it, and who listens."""

import enum
import os
import signal
import socket
import time
from typing import Any, Callable, Dict, Iterable, List, Optional

from . import containers, procinfo, reasons, records, refusals
from .feeds import Feed
from .link import Link
from .log import Log
from .loop import Loop, Timer
from .output import Output
from .places import LONGEST_SOCKET
from .problems import KernelEnded, PathTooLong
from .sockets import CONTROL, IOPUB, NAMES, SHELL, STDIN, KernelSocket, Owner, SocketState, ip_of, path_of
from .spawn import exit_record, process_record

RECORD = "kernel.json"
CONNECTION = "connection.json"
#: A kernel that is ending closes its sockets before its process is gone; after that long it is a trouble of its own.
_RECONNECT = 1.0
_LONGEST_RECONNECT = 30.0
_SLOW_WATCH = 2.0
_STDIN_PATIENCE = 1.0

Event = Dict[str, Any]


class State(enum.Enum):
    STARTING = "starting"
    LIVE = "live"
    ENDED = "ended"


MOVES = {
    State.STARTING: {State.LIVE, State.ENDED},
    State.LIVE: {State.ENDED},
    State.ENDED: {State.STARTING},
}


class Holder(object):
    """What a kernel needs of the worker."""

    def hold(self, names: List[str], descriptors: List[int]) -> None:
        """The guard gets duplicates.  They are with it, or on their way to it, when this returns."""
        raise NotImplementedError

    def let_go(self, prefix: str) -> None:
        raise NotImplementedError

    def tell(self, event: Event) -> None:
        """Tell the keeper."""
        raise NotImplementedError

    def hungry(self, kernel: "Kernel") -> None:
        """There is something to feed."""
        raise NotImplementedError

    def kernel_ended(self, kernel: "Kernel") -> None:
        raise NotImplementedError


class Kernel(Owner):
    """Everything that must survive the worker is in `facts`, which are written to the disk before they are acted on."""

    def __init__(self, holder: Holder, loop: Loop, log: Log, directory: str, facts: Dict[str, Any]) -> None:
        self.directory = directory
        self.facts = facts
        self.id = str(facts["kernel"])
        self.state = State(facts["state"])
        self.channels: Dict[str, int] = {}
        self.feeds: Dict[str, Feed] = {}
        self.on_spawned: List[Callable[[Optional[str]], None]] = []
        self.on_ended: List[Callable[[], None]] = []
        self.output = Output(loop, directory)
        self._holder = holder
        self._loop = loop
        self._log = log
        self._draining = False
        self._gaps: List[str] = []
        self._end_untold = False  # the keeper has still to be told of the end
        self._reconnect: Optional[Timer] = None
        self._reconnect_pause = _RECONNECT
        self._watch: Optional[Timer] = None
        self._kill: Optional[Timer] = None
        self._stdin_wait: Optional[Timer] = None
        self._stdin_had_time = False
        self._keep: Optional[Timer] = None
        journal = facts.get("journal")
        self.sockets = {name: KernelSocket(self, loop, log, directory, name, journal) for name in NAMES}

    def __repr__(self) -> str:
        return "<Kernel %s, life %d, %s, pid %s>" % (
            self.id,
            self.life,
            self.state.value,
            self.facts.get("pid"),
        )

    @property
    def life(self) -> int:
        return int(self.facts["life"])

    @property
    def pid(self) -> int:
        return int(self.facts.get("pid") or 0)

    def _is_connected(self, name: str) -> bool:
        return self.sockets[name].state is SocketState.CONNECTED

    def _move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError("%r cannot become %s" % (self, state.value))
        self.state = state
        self.facts["state"] = state.value

    def save(self) -> None:
        records.write(os.path.join(self.directory, RECORD), self.facts)

    def try_to_save(self) -> None:
        """Where the fact is already so, and a full disk can only make it be found out again."""
        try:
            self.save()
        except OSError as error:
            self._log("%r could not be written down: %s" % (self, error))

    # -- a life -------------------------------------------------------------------------------------------------

    def begin_life(self, facts: Dict[str, Any]) -> None:
        """Before the process is asked for: everything is on disk.  Raises OSError or `PathTooLong`."""
        longest = path_of(self.directory, int(facts["life"]), NAMES[-1])
        if len(os.fsencode(longest)) > LONGEST_SOCKET:
            raise PathTooLong(longest)
        self.facts.update(facts)
        if self.state is State.ENDED:
            self._move(State.STARTING)
            self._stdin_wait, self._stdin_had_time = None, False
            self._remove_old_life()
        self._end_untold = self._draining = False
        self.output.begin_life()
        self.facts.update(
            state=State.STARTING.value, pid=None, started=time.time(), ended=None, reason=None, wanted=None
        )
        self.save()
        names = [self._held(name + ".out") for name in NAMES]
        self._holder.hold(names, [self.sockets[name].new_outbox() for name in NAMES])

    def _remove_old_life(self) -> None:
        for entry in os.listdir(self.directory):
            if entry.startswith(("process-", "exit-")) or entry[:1].isdigit():
                os.unlink(os.path.join(self.directory, entry))
        refusals.forget(self.directory)
        containers.forget(self.directory)

    def spawned(self, pid: int, start: int, output: int) -> None:
        """The guard has started it."""
        self.facts.update(pid=pid, start=start)
        self._note_memory_group()
        self.try_to_save()
        self.output.watch(output)
        self._tell_state()
        self._answer_start(None)
        if self.facts.get("wanted"):
            self.end(str(self.facts["wanted"]), 0)
        self._connect(NAMES, True)

    def refused(self, what: str) -> None:
        """The guard could not start it."""
        reason = reasons.reason("failed", "It could not be started: %s." % what)
        self._ended(reason)
        self._answer_start(str(reason["text"]))

    def _answer_start(self, failure: Optional[str]) -> None:
        waiting, self.on_spawned = self.on_spawned, []
        for answer in waiting:
            answer(failure)

    def _connect(self, names: Iterable[str], fresh: bool) -> None:
        """`fresh`: with another identity.  A ROUTER refuses one that it has not yet seen leave (ZMQ_ROUTER_HANDOVER).

        Shell and stdin share theirs, or `input()` finds nobody; control needs none.
        """
        if fresh:
            self.facts["connections"] = int(self.facts.get("connections", 0)) + 1
            self.try_to_save()
        identity = b"farkernel-%d" % int(self.facts.get("connections", 0))
        for name in names:
            one = self.sockets[name]
            one.drain()
            self._holder.let_go(self._held(name + ".socket"))
            if not one.outbox_is_clean:
                self._holder.hold([self._held(name + ".out")], [one.new_outbox()])
            one.connect(path_of(self.directory, self.life, name), b"" if name == CONTROL else identity)

    def adopt(self, held: Dict[str, int], is_child: Callable[[int], bool]) -> None:
        """Take over from a worker that died (it left descriptors with the guard), or from an agent that did."""
        if self.state is State.ENDED:
            self._end_untold = True
            return
        if not self.pid:
            process = records.read(process_record(self.directory, self.life))
            if process is None:
                self._ended(reasons.reason("failed", reasons.LOST_START))
                return
            self.facts.update(pid=process["pid"], start=process["start"])
        whole = self._adopt_descriptors(held)
        record = records.read(exit_record(self.directory, self.life))
        if record is not None:
            self.exited(int(record["status"]))
        elif not procinfo.is_alive(self.pid, int(self.facts["start"])):
            self._ended_unseen()
        else:
            if not is_child(self.pid):
                self._watch_slowly()
            self._go_on(whole)

    def _adopt_descriptors(self, held: Dict[str, int]) -> bool:
        """Whether each connection that there was is still there and in good order."""
        output = held.get(self._held("output"))
        if output is not None:
            self.output.watch(output)
        whole = True
        for name in NAMES:
            one = self.sockets[name]
            outbox = held.get(self._held(name + ".out"))
            connection = held.get(self._held(name + ".socket"))
            if outbox is not None:
                one.adopt_outbox(outbox)
            if connection is not None and outbox is not None and not one.is_torn:
                one.adopt(socket.socket(fileno=connection))
            elif connection is not None:
                os.close(connection)
                whole = False
        return whole

    def _go_on(self, whole: bool) -> None:
        """It lives.  What a predecessor had connected and we have not got may have taken something with it."""
        missing = [name for name in NAMES if not self._is_connected(name)]
        if whole and (self.state is State.STARTING or missing in ([], [STDIN])):
            self._connect(missing, False)
            self._look_whether_live()
            return
        if SHELL in missing and STDIN not in missing:
            missing.append(STDIN)
        for name in missing:
            self._gap(name)
        self._connect(missing, True)

    def _watch_slowly(self) -> None:
        """It is nobody's child whom we know: its end is not reported, and has to be seen."""
        if procinfo.is_alive(self.pid, int(self.facts["start"])):
            self._watch = self._loop.later(_SLOW_WATCH, self._watch_slowly)
        elif self.state is not State.ENDED:
            self._ended_unseen()

    def _ended_unseen(self) -> None:
        self._drain()
        wanted = self.facts.get("wanted")
        kind, text = (wanted, reasons.WANTED[wanted]) if wanted else ("unknown", reasons.UNKNOWN)
        self._ended(reasons.reason(kind, text, tail=self.output.last_lines()))

    def orphaned(self) -> None:
        """Its guard died: nobody will report its end."""
        if self.state is not State.ENDED and self.pid and self._watch is None:
            self._watch_slowly()

    # -- sockets ------------------------------------------------------------------------------------------------

    def _held(self, what: str) -> str:
        return "%s/%s" % (self.directory, what)

    def socket_connected(self, name: str, descriptor: int) -> None:
        self._holder.hold([self._held(name + ".socket")], [descriptor])
        self._look_whether_live()

    def _look_whether_live(self) -> None:
        if self.state is State.STARTING and all(self._is_connected(name) for name in (SHELL, CONTROL, IOPUB)):
            # The kernel's ROUTER drops an input_request that comes before we are there; not every kernel opens stdin.
            if not self._is_connected(STDIN) and not self._stdin_had_time:
                if self._stdin_wait is None:
                    self._stdin_wait = self._loop.later(_STDIN_PATIENCE, self._stdin_is_late)
                return
            self._move(State.LIVE)
            # Again: the shell lines before it may have moved it into a group of its own.
            self._note_memory_group()
            self.try_to_save()
            self._tell_state()

    def _stdin_is_late(self) -> None:
        self._stdin_had_time = True
        self._look_whether_live()

    def socket_received(self, name: str) -> None:
        if name in (SHELL, CONTROL):
            self.output.kernel_answers()
        if self.sockets[name].tape.in_memory and not self.facts.get("disk_full"):
            self.facts["disk_full"] = True
            self._log("%r: the disk is full, its output is kept in memory" % self)
            self._holder.tell({"event": "disk", "kernel": self.id, "directory": self.directory})
        if name in self.feeds:
            self._holder.hungry(self)

    def socket_lost(self, name: str, why: str) -> None:
        if self._draining:
            return
        self._holder.let_go(self._held(name + ".socket"))
        if self.state is State.ENDED or self._reconnect is not None:
            return
        self._log("%r: %s: %s" % (self, name, why))
        self._reconnect = self._loop.later(self._reconnect_pause, self._connect_again)
        self._reconnect_pause = min(self._reconnect_pause * 2, _LONGEST_RECONNECT)

    def _connect_again(self) -> None:
        self._reconnect = None
        if self.state is not State.ENDED:
            lost = [name for name in NAMES if self.sockets[name].state is SocketState.CLOSED]
            for name in lost:
                self._gap(name)
            self._connect(lost, False)

    def _gap(self, name: str) -> None:
        """Something may be missing after the last message of that name; the keeper is told, if need be later."""
        self._gaps.append(name)
        self._tell_gaps()

    def _tell_gaps(self) -> None:
        if self.feeds:
            gaps, self._gaps = self._gaps, []
            for name in gaps:
                last = self.sockets[name].tape.last
                self._tell_dropped(name, last + 1, last, None)

    def _tell_dropped(self, name: str, first: int, last: int, size: Optional[int]) -> None:
        event = {
            "event": "dropped",
            "kernel": self.id,
            "name": name,
            "first": first,
            "last": last,
            "bytes": size,
        }
        self._holder.tell(event)

    def _drain(self) -> None:
        self._draining = True
        for one in self.sockets.values():
            one.drain()
        self.output.drain()

    # -- the end ------------------------------------------------------------------------------------------------

    def exited(self, wait_status: int) -> None:
        if self.state is State.ENDED:
            return
        self._drain()
        tail, wanted = self.output.last_lines(), self.facts.get("wanted")
        refused = refusals.read(self.directory)
        failure = str(refused) if refused else containers.client_failed(self.directory, wait_status)
        if failure and not wanted:
            status = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else None
            self._ended(reasons.reason("failed", failure, status, None, tail))
            return
        status = containers.real_status(self.directory, wait_status)
        self._ended(reasons.of_exit(status, wanted, self._oom_group(), tail))

    def _note_memory_group(self) -> None:
        group = procinfo.memory_group(int(self.facts["pid"]))
        self.facts["oom_kills"] = group.oom_kills() if group is not None else 0
        if group is not None:
            self.facts.update(cgroup=group.directory, unified=group.is_unified)

    def _oom_group(self) -> Optional[procinfo.MemoryGroup]:
        """The kernel's memory cgroup, if the system killed in it since the kernel was started."""
        if not self.facts.get("cgroup"):
            return None
        group = procinfo.MemoryGroup(str(self.facts["cgroup"]), bool(self.facts.get("unified")))
        return group if group.oom_kills() > int(self.facts.get("oom_kills", 0)) else None

    def seen_oom(self) -> None:
        """Another kernel ended: what was counted until now was not this one."""
        group = self._oom_group()
        if group is not None and self.state is not State.ENDED:
            self.facts["oom_kills"] = group.oom_kills()
            self.try_to_save()

    def _ended(self, reason: Dict[str, Any]) -> None:
        for timer in (self._reconnect, self._watch, self._kill, self._keep, self._stdin_wait):
            if timer is not None:
                timer.cancel()
        self._reconnect = self._watch = self._kill = self._keep = None
        for one in self.sockets.values():
            one.close()
            one.close_outbox()
        self.output.close()
        self._holder.let_go(self.directory + "/")
        containers.remove(self._loop, self.directory, self.life)
        self._move(State.ENDED)
        self.facts.update(ended=time.time(), reason=reason)
        self.try_to_save()
        self._log("%r: %s" % (self, reason["text"]))
        self._end_untold = True
        self.tell_end()
        waiting, self.on_ended = self.on_ended, []
        for answer in waiting:
            answer()
        self._holder.kernel_ended(self)

    def tell_end(self) -> None:
        """After its last message, and not before: on the link, channel 0 overtakes the others."""
        if self._end_untold and all(feed.is_through for feed in self.feeds.values()):
            self._end_untold = False
            self._tell_state()

    def end(self, wanted: str, grace: float) -> None:
        """Terminate it, with everything in its session; after `grace` seconds without mercy."""
        self.facts["wanted"] = wanted
        self.try_to_save()
        if not self.pid:
            return  # as soon as it is there
        if grace > 0:
            self.signal_session(signal.SIGTERM)
            if self._kill is not None:
                self._kill.cancel()
            self._kill = self._loop.later(grace, self._end_now)
        else:
            self._end_now()

    def _end_now(self) -> None:
        self.signal_session(signal.SIGKILL)
        containers.remove(self._loop, self.directory, self.life)

    def signal_session(self, signum: int) -> None:
        for one in procinfo.sessions().get(self.pid, []):
            self._signal(one.pid, signum)

    def ignores(self, signum: int) -> bool:
        return self.pid > 0 and procinfo.ignores(self.pid, signum)

    def signal(self, signum: int, group: bool) -> None:
        if self.state is State.ENDED or not self.pid:
            raise KernelEnded("take signals")
        self._signal(-self.pid if group else self.pid, signum)

    def _signal(self, pid: int, signum: int) -> None:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            pass  # it went meanwhile, or became somebody else (sudo)

    # -- the keeper ---------------------------------------------------------------------------------------------

    def attach(self, link: Link, channels: Dict[str, int], received: Dict[str, int]) -> None:
        """The link's channels are open.  What was not received goes there, and what comes from now on."""
        self.detach(link)
        self._stop_keep()
        self.channels = dict(channels)
        for name, channel in channels.items():
            tape = self.sockets[name].tape
            tape.received = received.get(name, 0)

            def on_dropped(first: int, last: int, size: Optional[int], name: str = name) -> None:
                self._tell_dropped(name, first, last, size)

            first = min(received.get(name, 0), tape.last) + 1
            self.feeds[name] = Feed(link, channel, tape, first, on_dropped)
        self._end_untold = self.state is State.ENDED
        self._tell_gaps()
        self.feed()  # with nothing left to say, an end is known at once
        self._holder.hungry(self)

    @property
    def shown_state(self) -> str:
        """As the keeper may hear it now: not ended before its last message is on the way."""
        return State.LIVE.value if self._end_untold and self.feeds else self.state.value

    def detach(self, link: Optional[Link]) -> None:
        """`link`: that the channels belong to, if it still is."""
        for feed in self.feeds.values():
            if link is not None:
                feed.close()
            else:
                feed.abandon()
        self.feeds.clear()
        self.channels.clear()
        for one in self.sockets.values():
            one.tape.passed_on = 0
        self.count_keep()

    def detach_one(self, channel: int) -> None:
        """The keeper closed it."""
        for name, number in list(self.channels.items()):
            if number == channel:
                del self.channels[name]
                self.feeds.pop(name).close()
        if not self.channels:
            self.count_keep()

    def count_keep(self) -> None:
        """From now on nobody is there for it."""
        self._stop_keep()
        keep = self.facts.get("keep")
        if keep is not None and self.state is not State.ENDED:
            self._keep = self._loop.later(float(keep), self._keep_is_over)

    def stop_keep_while_attached(self) -> None:
        if self.feeds:
            self._stop_keep()

    def _stop_keep(self) -> None:
        if self._keep is not None:
            self._keep.cancel()
            self._keep = None

    def _keep_is_over(self) -> None:
        self._keep = None
        self.end("keep", 5.0)

    def feed(self) -> bool:
        """Whether there is more for later."""
        for feed in self.feeds.values():
            feed.feed()
        self.tell_end()
        return self._end_untold or any(feed.has_more for feed in self.feeds.values())

    def _tell_state(self) -> None:
        event = {"event": "kernel", "kernel": self.id, "life": self.life, "state": self.state.value}
        self._holder.tell(dict(event, reason=self.facts.get("reason")))

    def listed(self, sessions: Dict[int, List[procinfo.Stat]]) -> Dict[str, Any]:
        names = ("kernel", "life", "label", "started", "ended", "reason", "devices", "engine")
        told = {key: self.facts.get(key) for key in names}
        usage = None
        if self.state is not State.ENDED and self.pid:
            usage = procinfo.usage(sessions.get(self.pid, []))._asdict()
        pid = self.pid or None
        return dict(told, state=self.state.value, pid=pid, usage=usage, attached=bool(self.feeds))

    def remove(self) -> None:
        """Its directory goes, and with it all that it said."""
        self.detach(None)
        self._stop_keep()
        import shutil

        shutil.rmtree(self.directory, ignore_errors=True)


def connection_facts(directory: str, life: int, key: str, name: str) -> Dict[str, Any]:
    """The content of the kernel's connection file."""
    ports = {"%s_port" % socket_name: place + 1 for place, socket_name in enumerate(NAMES)}
    facts: Dict[str, Any] = {
        "transport": "ipc",
        "ip": ip_of(directory, life),
        "hb_port": len(NAMES) + 1,
        "key": key,
        "signature_scheme": "hmac-sha256",
        "kernel_name": name,
    }
    return dict(facts, **ports)
