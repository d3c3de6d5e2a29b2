"""A run's votes: brought in from files and other runs, sent out, and looked at."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from d3po.annotation.agreement import Agreement, AnnotatorReport, Proportion, agreement, report_annotators
from d3po.annotation.ranking import GoldRecord, Reliability, reliabilities
from d3po.errors import FormatError, RunFolderError
from d3po.exchange.exporting import export_items
from d3po.exchange.formats import find_format
from d3po.exchange.formats.base import Reading, Written
from d3po.exchange.formats.neutral import BadRecord, ImportedJudgement, Item, clean_handle
from d3po.exchange.importing import Destination, Imported, import_items, import_name, rehearse
from d3po.preferences.conversion import pair_judgements
from d3po.preferences.records import AnnotatorKind, NewQuestion, Purpose, Vote
from d3po.run.folder import RunFolder
from d3po.run.progress import Bar, Narrator
from d3po.store import Annotator, Store
from d3po.text import fold

Told = TypeVar("Told", Item, Item | BadRecord)

MANY = 1_000_000
"""People who may be asked a gold question: everybody."""

OWN = "jsonl"
"""The format that keeps every event."""

LONGEST_ANONYMOUS = 56
"""Characters of the handle of nobody named, which leaves room for a number behind it."""


@dataclass(frozen=True, kw_only=True)
class VoteStatistics:
    """What a run's current votes look like."""

    outcomes: Counter[tuple[str, str, str]]
    """Votes by purpose, kind of question and outcome."""
    agreement: dict[str, Agreement]
    """Of people, and where others judge too, of everybody."""
    left: Proportion
    """Pairs that people gave to the picture shown on the left."""
    reports: list[tuple[Annotator, AnnotatorReport, Reliability]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where votes come from."""

    format: str
    path: Path
    images: Path | None = None
    """The folder that picture paths are relative to; by default the one the file lies in."""
    name: str | None = None
    """The import's own name; by default the file's."""
    annotator: str | None = None
    """Handle for judgements of nobody named; by default import:NAME."""
    kind: AnnotatorKind = "human"
    question: str | None = None
    """The question whose answers are read, where the format's records answer several."""


def import_votes(folder: RunFolder, store: Store, source: Source, narrator: Narrator, *, skip_bad: bool = False) -> Imported:
    """Bring in a file's pictures and votes. Everything is read and checked before anything is written.

    Args:
        folder: of the run that takes.
        store: of the run that takes.
        source: where the votes come from.
        narrator: shows the progress.
        skip_bad: whether bad records are left out; else one of them stops the import, and nothing is written.

    Raises:
        FormatError: the file is not what its format asks for, has bad records that are not to be left out, or no votes.
    """
    kind, name = find_format(source.format), source.name or import_name(source.path)
    if import_name(Path(f"{name}.x")) != name:
        raise FormatError(f"the name {name!r} has something other than letters, digits, '.', '_' and '-', or more than 40 of them")
    if not source.path.exists():
        raise FormatError(f"{source.path} is not there")
    if source.question is not None and not kind.has_questions:
        raise FormatError(f"--question {source.question}: records of the format {source.format} answer one question")
    anonymous = source.annotator or f"import:{name}"
    if clean_handle(anonymous) != anonymous or len(anonymous) > LONGEST_ANONYMOUS:
        raise FormatError(
            f"--annotator {anonymous!r}: a handle has 1 to {LONGEST_ANONYMOUS} printable characters, and is no e-mail address"
        )
    images = source.images or (source.path if source.path.is_dir() else source.path.parent)
    to = Destination(
        store=store, root=folder.path, name=name, kind=source.kind, anonymous=anonymous, held_out=frozenset(map(fold, folder.held_out()))
    )

    def reading() -> Reading:
        return Reading(source=source.path, images=images, annotator=anonymous, question=source.question)

    first = reading()
    with narrator.bar(f"checking {source.format}", kind.count(source.path)) as bar:
        expected = rehearse(_counted(kind.read(first), bar), to)
    _refuse(expected, source, first, kind.expects, skip_bad=skip_bad)
    with narrator.bar(f"importing {source.format}", expected.new_votes) as bar:
        done = import_items(_counted(kind.read(reading()), bar), to)
    if done.left_out.counts and not done.new_votes + done.known_votes:
        raise FormatError(f"{source.path}: no vote was imported; {'; '.join(done.left_out.lines())}")
    return replace(done, passed_over=first.passed_over)


def _refuse(found: Imported, source: Source, reading: Reading, expects: str, *, skip_bad: bool) -> None:
    """Stop an import before anything is written, if it has bad records or no votes."""
    remedy = f"nothing was imported; mend {'it' if found.bad == 1 else 'them'}, or pass --skip-bad to leave {'it' if found.bad == 1 else 'them'} out"
    if found.bad == 1 and not skip_bad:
        raise FormatError(f"{found.first_bad[0]}; {remedy}")
    if found.bad and not skip_bad:
        raise FormatError(f"{source.path}: {found.bad} records are bad, the first of them: {found.first_bad[0]}; {remedy}")
    if not found.new_votes:
        passed = [f"{count} {what}" for what, count in sorted(reading.passed_over.items())]
        bad = [f"{found.bad} bad records, the first of them: {found.first_bad[0]}"] if found.bad else []
        why = "; ".join([*bad, *passed, *found.left_out.lines()]) or "it has no such records"
        raise FormatError(f"{source.path}: no votes to import, so nothing was: {source.format} reads {expects}; {why}")


def export_votes(
    folder: RunFolder,
    store: Store,
    *,
    format: str,
    target: Path,
    round: int | None,
    purpose: Purpose | None,
    pictures: bool,
    narrator: Narrator,
) -> Written:
    """Write the run's votes to a file; formats other than our own hold current votes only.

    Raises:
        CorruptFileError: a picture is missing or not what was recorded.
    """
    kind, events = find_format(format), format == OWN
    items = export_items(store, folder.path, events=events, pictures=pictures, round=round, purpose=purpose)
    with narrator.bar(f"exporting {format}", None if events else store.votes.count(round=round, purpose=purpose)) as bar:
        return kind.write(_counted(items, bar), target)


def merge_votes(folder: RunFolder, store: Store, other: str, narrator: Narrator) -> Imported:
    """Take over the votes of another run's database on pictures that both runs have. Doing it again adds nothing.

    Args:
        folder: of the run that takes.
        store: of the run that takes.
        other: a run folder, or a database's URL.
        narrator: shows the progress.

    Raises:
        RunFolderError: there is no such run, or it is the same.
    """
    giver = _open_other(folder, store, other)
    try:
        items = export_items(giver, folder.path, events=True, pictures=False)
        held_out = frozenset(map(fold, folder.held_out()))
        to = Destination(store=store, root=folder.path, name="merge", take_pictures=False, held_out=held_out, trusted=True)
        with narrator.bar("merging", None) as bar:
            return import_items(_counted(items, bar), to)
    finally:
        giver.close()


def vote_statistics(store: Store) -> VoteStatistics:
    """Counts, agreement, position bias and a report on each annotator, of the votes that stand."""
    votes = list(store.votes.current())
    annotators = {each.id: each for each in store.people.annotators()}
    people = [vote for vote in votes if annotators[vote.annotator].kind == "human"]
    agreements = {"people": agreement(people)}
    if len(people) < len(votes):
        agreements["people and others"] = agreement(votes)
    reports = report_annotators(votes, gold=store.questions.expected())
    gold = {report.annotator: GoldRecord(right=report.gold.count, asked=report.gold.total) for report in reports}
    trusted = reliabilities(pair_judgements(vote for vote in votes if vote.purpose not in ("gold", "repeat")), gold=gold)
    return VoteStatistics(
        outcomes=Counter((vote.purpose, vote.kind, vote.answer.outcome) for vote in votes),
        agreement=agreements,
        left=_left(people),
        reports=[(annotators[report.annotator], report, trusted[report.annotator]) for report in reports],
    )


def make_gold(store: Store, handle: str, count: int) -> int:
    """Ask everybody what one annotator has answered, as gold questions, newest answers first; returns how many were put.

    Raises:
        RunFolderError: nobody of that name has voted.
    """
    whose = {each.id for each in store.people.annotators() if each.handle == handle}
    known = [v for v in store.votes.current(purpose="train") if v.annotator in whose and v.answer.outcome in ("win", "best_worst", "marks")]
    if not known:
        raise RunFolderError(
            f"{handle!r} has no votes that prefer something, to make gold questions of; let them rate some questions first"
        )
    golden = [
        NewQuestion(kind=v.kind, purpose="gold", images=v.images, round=v.round, overlap=MANY, gold_answer=v.answer)
        for v in known[: -count - 1 : -1]
    ]
    return len(store.questions.ask(golden))


def _left(votes: Iterable[Vote]) -> Proportion:
    left = [vote.shown[0] == vote.answer.winner for vote in votes if vote.kind == "pair" and vote.answer.outcome == "win"]
    return Proportion(count=sum(left), total=len(left))


def _counted(items: Iterable[Told], bar: Bar) -> Iterator[Told]:
    for item in items:
        yield item
        if isinstance(item, ImportedJudgement | BadRecord):
            bar.advance()


def _open_other(folder: RunFolder, store: Store, other: str) -> Store:
    if "://" in other:
        giver = Store(other)
        if giver.database.address == store.database.address:
            giver.close()
            raise RunFolderError(f"{other} is the run's own database")
        return giver
    giver = RunFolder(path=Path(other))
    if giver.path.resolve() == folder.path.resolve():
        raise RunFolderError(f"{other} is the run itself; name another one")
    return giver.store(giver.config().database)
