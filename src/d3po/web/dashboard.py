"""Collects what the dashboard shows. The costly part, the annotators' statistics, is cached for some seconds."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from d3po.preferences.records import Vote
from d3po.store import Annotator, Store
from d3po.web.figures import Figures
from d3po.web.messages import AgreementMessage, AnnotatorFigures, Control, Dashboard, Round
from d3po.web.run_log import JournalView

if TYPE_CHECKING:
    from d3po.annotation.agreement import AnnotatorReport

SHOWN_MINUTES = 120
FRESH_SECONDS = 3.0
"""How long the annotators' statistics are used before they are computed again."""
EFFORT = 0.1
"""The largest share of the time that may be spent on these statistics. If they take long, they are computed less often."""
MOST_VOTES = 20_000
"""The statistics use at most this many of the newest votes, of the run or of a round: enough for narrow intervals, and at most a second's work."""


class Overview:
    """Collects the state of the run for the dashboard."""

    def __init__(self, store: Store, journal: JournalView, figures: Figures, *, run: str) -> None:
        self._store, self._journal, self._figures, self._run = store, journal, figures, run
        self._people = PeopleView(store, figures)

    def gather(self) -> Dashboard:
        """Collect everything as of now. Blocks."""
        people = self._people.newest()
        control = self._store.journal.current_control()
        votes = self._store.votes.count()  # before all else that counts votes, so that no table shows fewer than the page's total
        return Dashboard(
            run=self._run,
            now=self._store.database.now(),
            phase=self._journal.phase(),
            control=Control(paused=control.paused, stop=control.stop, train_now_round=control.train_now_round),
            rounds=[
                Round(
                    round=count.round, questions=count.questions, wanted=count.wanted, answered=count.answered, open=count.open,
                    agreement=people.by_round.get(count.round), phases=self._journal.phases(count.round),
                )
                for count in self._figures.rounds()
            ],
            votes_per_minute=self._figures.votes_per_minute(SHOWN_MINUTES),
            votes=votes,
            measured_by=self._journal.measured_by(),
            curves=self._journal.curves(),
            agreement=people.together,
            annotators=people.figures,
            alarms=self._journal.alarms(),
            cost=self._journal.cost(),
            samples=self._figures.samples(),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AnnotatorStatistics:
    """Statistics of the annotators' answers."""

    figures: list[AnnotatorFigures]
    """The figures of each annotator, most votes first."""
    together: AgreementMessage | None
    """The agreement of people over all rounds."""
    by_round: dict[int, AgreementMessage]
    """The agreement of people in each round."""


class PeopleView:
    """Computes the annotators' statistics, and caches them for a few seconds."""

    def __init__(self, store: Store, figures: Figures) -> None:
        self._store, self._figures = store, figures
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._newest = AnnotatorStatistics(figures=[], together=None, by_round={})
        self._rounds: dict[int, tuple[int, AgreementMessage]] = {}
        """For each round, the number of answers and the agreement computed from them."""

    def newest(self) -> AnnotatorStatistics:
        """The statistics, from the cache or computed. Blocks while they are computed."""
        with self._lock:
            if time.monotonic() > self._until:
                self._newest = self._compute()
            return self._newest

    def _compute(self) -> AnnotatorStatistics:
        from d3po.annotation.agreement import report_annotators  # imported here because scipy takes a second to load

        started = time.monotonic()
        votes = list(self._store.votes.current(after=self._figures.newest_vote() - MOST_VOTES))
        known = {one.id: one for one in self._store.people.annotators()}
        people = {one.id for one in known.values() if one.kind == "human"}
        reports = report_annotators(votes, gold=self._store.questions.expected())
        figures = [_figures(report, known[report.annotator]) for report in reports]
        together, by_round = _agreement(votes, people), self._by_round(people)
        now = time.monotonic()
        self._until = now + max(FRESH_SECONDS, (now - started) / EFFORT)
        return AnnotatorStatistics(figures=sorted(figures, key=lambda one: -one.votes), together=together, by_round=by_round)

    def _by_round(self, people: set[int]) -> dict[int, AgreementMessage]:
        """The agreement in each round. The newest round's is always computed again, an older round's only if its number of answers has changed."""
        counts = [count for count in self._figures.rounds() if count.answered]
        for count in counts:
            if count is counts[-1] or self._rounds.get(count.round, (0,))[0] != count.answered:
                votes = self._store.votes.current(round=count.round, purpose="train", limit=MOST_VOTES)
                if found := _agreement(votes, people):
                    self._rounds[count.round] = count.answered, found
        return {round: found for round, (_, found) in self._rounds.items()}


def _agreement(votes: Iterable[Vote], people: set[int]) -> AgreementMessage | None:
    """The agreement of these people; None if they have no votes. Rules and models are left out, because they would agree with themselves."""
    from d3po.annotation.agreement import agreement

    theirs = [vote for vote in votes if vote.annotator in people]
    found = agreement(theirs)
    return AgreementMessage(alpha=found.alpha, low=found.low, high=found.high, pairs=found.pairs) if theirs else None


def _figures(report: "AnnotatorReport", who: Annotator) -> AnnotatorFigures:
    ends = report.gold.interval if report.gold.total else (None, None)
    return AnnotatorFigures(
        handle=who.handle, kind=who.kind, votes=report.votes,
        gold_asked=report.gold.total, gold_right=report.gold.count, gold_low=ends[0], gold_high=ends[1],
        again_asked=report.consistent.total, again_same=report.consistent.count,
        left_share=report.left.share, left_p=report.left_p, median_rt_ms=report.median_rt_ms, fast_share=report.fast.share,
        intransitive=report.cycles.count, suspicions=list(report.suspicions),
    )  # fmt: skip
