"""Gathers what the dashboard shows. The costly part, how annotators agree, is computed once in a while and beside the requests."""

import threading
import time
from typing import TYPE_CHECKING

from d3po.preferences.store import Annotator, Store
from d3po.web.figures import Figures
from d3po.web.journal import JournalView
from d3po.web.messages import Agreement, AnnotatorFigures, Control, Dashboard, Round

if TYPE_CHECKING:
    from d3po.preferences.agreement import AnnotatorReport

SHOWN_MINUTES = 120
STALE_SECONDS = 30.0
MOST_VOTES = 20_000
"""How people answer is computed on the newest so many votes: enough for narrow intervals, and a second's work at most."""


class Overview:
    """The run as administrators see it."""

    def __init__(self, store: Store, journal: JournalView, figures: Figures, *, run: str) -> None:
        self._store, self._journal, self._figures, self._run = store, journal, figures, run
        self._people = PeopleView(store, figures)

    def gather(self) -> Dashboard:
        """Everything as of now. Blocks."""
        people, together = self._people.newest()
        control = self._store.journal.standing_control()
        return Dashboard(
            run=self._run,
            now=self._store.database.now(),
            phase=self._journal.phase(),
            control=Control(paused=control.paused, stop=control.stop, train_now_round=control.train_now_round),
            rounds=[
                Round(
                    round=count.round, questions=count.questions, wanted=count.wanted, answered=count.answered, open=count.open,
                    phases=self._journal.phases(count.round),
                )
                for count in self._figures.rounds()
            ],
            votes_per_minute=self._figures.votes_per_minute(SHOWN_MINUTES),
            votes=self._store.votes.count(),
            curves=self._journal.curves(),
            agreement=together,
            annotators=people,
            alarms=self._journal.alarms(),
            cost=self._journal.cost(),
            samples=self._figures.samples(),
        )  # fmt: skip


class PeopleView:
    """How annotators answer and agree, at most so stale."""

    def __init__(self, store: Store, figures: Figures) -> None:
        self._store, self._figures = store, figures
        self._lock = threading.Lock()
        self._made_at = float("-inf")
        self._people: list[AnnotatorFigures] = []
        self._together: Agreement | None = None

    def newest(self) -> tuple[list[AnnotatorFigures], Agreement | None]:
        """Everybody's figures, most votes first, and how much they agree. Blocks while they are computed anew."""
        with self._lock:
            started = time.monotonic()
            if started - self._made_at > STALE_SECONDS:
                self._compute()
                spent = time.monotonic() - started
                self._made_at = time.monotonic() + 4 * spent  # a large run is not computed over and over
            return self._people, self._together

    def _compute(self) -> None:
        from d3po.preferences.agreement import agreement, report_annotators  # scipy takes a second to load, which starting should not

        votes = list(self._store.votes.standing(after=self._figures.newest_vote() - MOST_VOTES))
        known = {one.id: one for one in self._store.people.annotators()}
        reports = report_annotators(votes, gold=self._store.questions.expected())
        people = [_figures(report, known[report.annotator]) for report in reports]
        self._people = sorted(people, key=lambda one: -one.votes)
        found = agreement(votes)
        self._together = Agreement(alpha=found.alpha, low=found.low, high=found.high, pairs=found.pairs) if votes else None


def _figures(report: "AnnotatorReport", who: Annotator) -> AnnotatorFigures:
    ends = report.gold.interval if report.gold.total else (None, None)
    return AnnotatorFigures(
        handle=who.handle, kind=who.kind, votes=report.votes,
        gold_asked=report.gold.total, gold_right=report.gold.count, gold_low=ends[0], gold_high=ends[1],
        left_share=report.left.share, left_p=report.left_p, median_rt_ms=report.median_rt_ms, fast_share=report.fast.share,
        intransitive=report.cycles.count, suspicions=list(report.suspicions),
    )  # fmt: skip
