"""What a run tells its dashboard: phases, updates, evaluations, alarms, each with what was spent since the entry before."""

import time
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from d3po.store import Journal
from d3po.training.guards import Alarm

PhaseName = Literal["sampling", "rating", "judging", "training", "evaluating", "blind test", "done", "stopped"]


class RunJournal:
    """Writes to the store's journal; counts the network's rows and the seconds that pass."""

    def __init__(self, journal: Callable[[], Journal]) -> None:
        """`journal` is asked for when there is something to write: who only counts rows needs no database."""
        self._journal = journal
        self._rows, self._times, self._since = 0, 1, time.monotonic()

    def watch(self, network: nn.Module, *, times: int = 1) -> None:
        """Count every row that goes through the network; `times` as many where that is one of several parts."""
        self._times = times
        network.register_forward_pre_hook(self._count, with_kwargs=True)

    def phase(self, name: PhaseName, round: int | None, message: str = "") -> None:
        """A phase begins."""
        self.write("phase", round, phase=name, message=message)

    def alarm(self, alarm: Alarm, round: int) -> None:
        """A guard fired."""
        self.write("alarm", round, guard=alarm.guard, message=alarm.message, stops=alarm.stops)

    def write(self, kind: Literal["phase", "update", "evaluation", "alarm"], round: int | None, **body: Any) -> None:
        """An entry, with what was spent since the last."""
        spent = {"seconds": time.monotonic() - self._since, "network_rows": self._rows}
        self._journal().write(kind, round, body | spent)
        self.forget()

    def forget(self) -> None:
        """What passed since the last entry cost nothing: people were waited for."""
        self._rows, self._since = 0, time.monotonic()

    def phase_began(self, name: PhaseName, round: int) -> int | None:
        """When the round's phase was first begun, in ms since 1970; None if it never was."""
        begun = (e.at for e in self._journal().read(kind="phase") if e.round == round and e.body.get("phase") == name)
        return next(begun, None)

    def _count(self, _network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._rows += self._times * len(positional[0] if positional else next(iter(named.values())))
