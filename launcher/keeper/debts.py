"""Stops that are owed: kernels that were given up while their agents could not be reached (DESIGN §3, promise 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ..configuration import Target
from .allocations import Allocations
from .facts import Facts
from .inquiries import Inquiries
from .kernel import Kernel


class Debts:
    """Of one keeper.  They stand in the kernels' facts; each is paid by the allocation that the kernel was in.

    ``target``: of a kernel, by its facts; ``known``: all targets that are configured now.
    """

    def __init__(
        self,
        allocations: Allocations,
        inquiries: Inquiries,
        target: Callable[[Facts], Target],
        known: Callable[[], Mapping[str, Target]],
        save: Callable[[Facts], None],
    ) -> None:
        self._allocations = allocations
        self._inquiries = inquiries
        self._target = target
        self._known = known
        self._save = save

    def pay(self, facts: Facts) -> None:
        """A former keeper gave that kernel up while it was out of reach."""

        def left(member: str) -> None:
            facts.left.pop(member, None)
            self._save(facts)

        def paid() -> None:
            facts.owed = False
            self._save(facts)

        self.pay_elsewhere(facts, left)
        if not facts.owed:
            return
        target = self._target(facts)
        if target.address.members:
            paid()
            return
        if self._allocations.may_live(target, facts.kernel):
            self._owe(target, facts.kernel, facts.far_name, paid)
        else:
            paid()

    def pay_elsewhere(self, facts: Facts, paid: Callable[[str], None]) -> None:
        """It was started again on another member of its pool, while a former one was out of reach."""
        known = self._known()
        for member, far in list(facts.left.items()):
            if member in known:
                self._owe(known[member], facts.kernel, far, partial(paid, member))
            else:
                paid(member)

    def owe(self, kernel: Kernel) -> None:
        """It was given up before its allocation was entered."""
        paid = partial(kernel.stop_paid, kernel.facts.member)
        if self._allocations.may_live(kernel.target, kernel.id):
            self._owe(kernel.target, kernel.id, kernel.far, paid)
        else:
            paid()

    def _owe(self, target: Target, kernel: str, far: str, paid: Callable[[], None]) -> None:
        self._inquiries.when_known(
            target, lambda: self._allocations.for_kernel(target, kernel).owe_stop(far, paid)
        )
