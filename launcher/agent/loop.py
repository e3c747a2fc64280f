"""One thread, one selector, some timers.  A callback's mistake is logged and never stops the rest."""

import heapq
import selectors
import time
from typing import Callable, Dict, List, Optional, Tuple

from .log import Log

Callback = Callable[[], None]
LONGEST_WAIT = 3600.0


class Timer(object):
    """A call that is due; `cancel` may be called at any time, also afterwards."""

    def __init__(self, callback: Callback) -> None:
        self._callback: Optional[Callback] = callback

    @property
    def is_cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop(object):
    """Calls back when descriptors are ready and when times have come, until `stop`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._watched: Dict[int, Tuple[Optional[Callback], Optional[Callback]]] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._soon: List[Callback] = []
        self._count = 0
        self._running = False

    def watch(
        self, descriptor: int, readable: Optional[Callback], writable: Optional[Callback] = None
    ) -> None:
        """From now on these and no other callbacks.  PermissionError where the system cannot wait (a plain file)."""
        events = (selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if writable else 0)
        before = self._watched.get(descriptor)
        if not events:
            self.forget(descriptor)
        elif before is None:
            self._selector.register(descriptor, events)
            self._watched[descriptor] = (readable, writable)
        else:
            if (bool(before[0]), bool(before[1])) != (bool(readable), bool(writable)):
                self._selector.modify(descriptor, events)
            self._watched[descriptor] = (readable, writable)

    def forget(self, descriptor: int) -> None:
        """To be called before the descriptor is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._selector.unregister(descriptor)

    def later(self, delay: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + delay, self._count, timer))
        return timer

    def soon(self, callback: Callback) -> None:
        """At the end of this turn, when all that was ready has been dealt with."""
        self._soon.append(callback)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        self._running = True
        while self._running:
            self._fire_timers()
            self._finish_turn()
            if not self._running:
                return
            for key, events in self._selector.select(self._longest_wait()):
                self._dispatch(key.fd, events)

    def close(self) -> None:
        self._selector.close()

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now and self._running:
            self._guarded(heapq.heappop(self._timers)[2].fire, "a timer")

    def _finish_turn(self) -> None:
        callbacks, self._soon = self._soon, []
        for callback in callbacks:
            self._guarded(callback, "ending a turn")

    def _longest_wait(self) -> float:
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)  # nobody is to be woken for it
        if self._soon:
            return 0.0
        wait = timers[0][0] - time.monotonic() if timers else LONGEST_WAIT
        return max(min(wait, LONGEST_WAIT), 0.0)

    def _dispatch(self, descriptor: int, events: int) -> None:
        # Looked up afresh each time: an earlier callback of this round may have closed this descriptor.
        if events & selectors.EVENT_READ:
            readable = self._watched.get(descriptor, (None, None))[0]
            if readable is not None:
                self._guarded(readable, "reading")
        if events & selectors.EVENT_WRITE:
            writable = self._watched.get(descriptor, (None, None))[1]
            if writable is not None:
                self._guarded(writable, "writing")

    def _guarded(self, callback: Callback, doing: str) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - one kernel's trouble, whatever it is, must not end the others'
            self._log.failure("%s (%r)" % (doing, callback))
