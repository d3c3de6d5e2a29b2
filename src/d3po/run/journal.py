"""The journal that a run writes for its dashboard: phases, updates, evaluations and alarms, each with the cost since the entry before."""

import time
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from d3po.store import Journal
from d3po.training.guards import Alarm

PhaseName = Literal["sampling", "rating", "judging", "training", "evaluating", "blind test", "done", "stopped"]


class RunJournal:
    """Writes to the store's journal, and counts forward passes of the network and seconds.

    A forward pass is one image at one denoising step in the network; guidance doubles it. The key `network_rows` of an entry holds their number.
    """

    def __init__(self, journal: Callable[[], Journal]) -> None:
        """`journal` opens the store's journal. It is called when there is something to write, so that counting alone needs no database."""
        self._journal = journal
        self._forwards, self._times, self._since = 0, 1, time.monotonic()

    def watch(self, network: nn.Module, *, times: int = 1) -> None:
        """Count the forward passes of a network. In a sharded run, `times` is the number of processes, each of which computes an equal share."""
        self._times = times
        network.register_forward_pre_hook(self._count, with_kwargs=True)

    def phase(self, name: PhaseName, round: int | None, message: str = "") -> None:
        """Record that a phase begins."""
        self.write("phase", round, phase=name, message=message)

    def alarm(self, alarm: Alarm, round: int) -> None:
        """Record that a guard fired."""
        self.write("alarm", round, guard=alarm.guard, message=alarm.message, stops=alarm.stops)

    def write(self, kind: Literal["phase", "update", "evaluation", "alarm"], round: int | None, **body: Any) -> None:
        """Write an entry, with the seconds and forward passes since the last one."""
        spent = {"seconds": time.monotonic() - self._since, "network_rows": self._forwards}
        self._journal().write(kind, round, body | spent)
        self.forget()

    def forget(self) -> None:
        """Do not count what passed since the last entry, such as the time spent waiting for people."""
        self._forwards, self._since = 0, time.monotonic()

    def phase_began(self, name: PhaseName, round: int) -> int | None:
        """When this phase of the round first began, in milliseconds since 1970. None if it has not begun."""
        begun = (e.at for e in self._journal().read(kind="phase") if e.round == round and e.body.get("phase") == name)
        return next(begun, None)

    def _count(self, _network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._forwards += self._times * len(positional[0] if positional else next(iter(named.values())))
