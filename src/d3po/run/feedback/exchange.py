"""Imports a run's votes from files and other runs, exports them, and computes statistics of them."""

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
from d3po.progress import Bar, Narrator
from d3po.run.folder import RunFolder
from d3po.store import Annotator, Store
from d3po.text import fold

Told = TypeVar("Told", Item, Item | BadRecord)

MANY = 1_000_000
"""The overlap of a gold question: everybody may be asked it."""

FULL_FORMAT = "jsonl"
"""The format that keeps every event."""

LONGEST_ANONYMOUS = 56
"""The most characters of the handle for anonymous judgements, which leaves room for a number after it."""


@dataclass(frozen=True, kw_only=True)
class VoteStatistics:
    """Statistics of a run's current votes."""

    outcomes: Counter[tuple[str, str, str]]
    """The number of votes by purpose, kind of question and outcome."""
    agreement: dict[str, Agreement]
    """The agreement of people and, if models or rules voted too, of all annotators."""
    left: Proportion
    """How often people preferred the picture on the left."""
    reports: list[tuple[Annotator, AnnotatorReport, Reliability]]
    """A report on each annotator."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file or folder of votes to import."""

    format: str
    path: Path
    images: Path | None = None
    """The folder that picture paths are relative to. Default: the folder that holds the file."""
    name: str | None = None
    """The name of the import. Default: the file's name."""
    annotator: str | None = None
    """The handle for judgements without an annotator. Default: import:NAME."""
    kind: AnnotatorKind = "human"
    """The kind of annotators where the file does not say."""
    question: str | None = None
    """The question whose answers are read, if the format's records answer several."""


def import_votes(folder: RunFolder, store: Store, source: Source, narrator: Narrator, *, skip_bad: bool = False) -> Imported:
    """Import the pictures and votes of a file. Everything is read and checked before anything is written.

    Args:
        folder: the run that receives the votes.
        store: the store of that run.
        source: where the votes come from.
        narrator: shows the progress.
        skip_bad: whether to skip bad records. If not, one bad record stops the import, and nothing is written.

    Raises:
        FormatError: the file does not follow its format, has bad records that are not skipped, or has no votes.
    """
    kind, name = find_format(source.format), source.name or import_name(source.path)
    if import_name(Path(f"{name}.x")) != name:
        raise FormatError(f"the name {name!r} may have only letters, digits, '.', '_' and '-', and at most 40 of them")
    if not source.path.exists():
        raise FormatError(f"{source.path} does not exist")
    if source.question is not None and not kind.has_questions:
        raise FormatError(f"--question {source.question}: records of the format {source.format} answer only one question")
    anonymous = source.annotator or f"import:{name}"
    if clean_handle(anonymous) != anonymous or len(anonymous) > LONGEST_ANONYMOUS:
        raise FormatError(
            f"--annotator {anonymous!r}: a handle has 1 to {LONGEST_ANONYMOUS} printable characters, and is not an e-mail address"
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
    """Stop an import that has bad records or no votes, before anything is written."""
    remedy = (
        f"nothing was imported; fix {'it' if found.bad == 1 else 'them'}, or pass --skip-bad to skip {'it' if found.bad == 1 else 'them'}"
    )
    if found.bad == 1 and not skip_bad:
        raise FormatError(f"{found.first_bad[0]}; {remedy}")
    if found.bad and not skip_bad:
        raise FormatError(f"{source.path}: {found.bad} records are bad, the first of them: {found.first_bad[0]}; {remedy}")
    if not found.new_votes:
        passed = [f"{count} {what}" for what, count in sorted(reading.passed_over.items())]
        bad = [f"{found.bad} bad records, the first of them: {found.first_bad[0]}"] if found.bad else []
        why = "; ".join([*bad, *passed, *found.left_out.lines()]) or "the file has no such records"
        raise FormatError(f"{source.path}: there are no votes to import: {source.format} reads {expects}; {why}")


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
    """Write the run's votes to a file. The format jsonl holds every event; all others hold only current votes.

    Args:
        folder: the run.
        store: the store of the run.
        format: the format's name; docs/formats.md lists them.
        target: the file, or for some formats the folder, to write.
        round: export only votes of this round.
        purpose: export only votes for this purpose.
        pictures: whether to copy the pictures too.
        narrator: shows the progress.

    Raises:
        CorruptFileError: a picture is missing or differs from what was recorded.
    """
    kind, events = find_format(format), format == FULL_FORMAT
    items = export_items(store, folder.path, events=events, pictures=pictures, round=round, purpose=purpose)
    with narrator.bar(f"exporting {format}", None if events else store.votes.count(round=round, purpose=purpose)) as bar:
        return kind.write(_counted(items, bar), target)


def merge_votes(folder: RunFolder, store: Store, other: str, narrator: Narrator) -> Imported:
    """Copy the votes of another run's database on pictures that both runs have. Doing it again adds nothing.

    Args:
        folder: the run that receives the votes.
        store: the store of that run.
        other: a run folder, or a database's URL.
        narrator: shows the progress.

    Raises:
        RunFolderError: there is no such run, or it is the receiving run itself.
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
    """Compute counts, agreement, position bias and a report on each annotator from the current votes."""
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
    """Turn the newest answers of one annotator into gold questions for everybody, and return how many were made.

    Args:
        store: the run's store.
        handle: the annotator whose answers are taken to be right.
        count: the most questions to make.

    Raises:
        RunFolderError: that annotator has no vote that prefers something.
    """
    whose = {each.id for each in store.people.annotators() if each.handle == handle}
    known = [v for v in store.votes.current(purpose="train") if v.annotator in whose and v.answer.outcome in ("win", "best_worst", "marks")]
    if not known:
        raise RunFolderError(
            f"{handle!r} has no votes with a preference, so no gold questions can be made of them; let this annotator rate some pictures first"
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
            raise RunFolderError(f"{other} is the database of this same run; name another one")
        return giver
    giver = RunFolder(path=Path(other))
    if giver.path.resolve() == folder.path.resolve():
        raise RunFolderError(f"{other} is this same run; name another one")
    return giver.store(giver.config().database)
