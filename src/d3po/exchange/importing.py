"""Import into the store: pictures are found by their content or added, and judgements become votes."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from d3po.errors import FormatError, StorageError, VoteConflictError, VoteError
from d3po.exchange.formats.neutral import BadRecord, ImportedJudgement, ImportedPicture, Item, clean_handle, renamed
from d3po.pictures import decode, encode
from d3po.preferences.records import AnnotatorKind, Answer, NewQuestion
from d3po.store import NewPicture, Store
from d3po.store.checks import check_answer, check_question
from d3po.store.foreign import Foreign, KnownPicture, StoredEvent, check_event
from d3po.store.people import OWNER
from d3po.text import fold

BATCH = 200
"""Items recorded at a time."""

SHOWN = 5
"""How many bad records are reported one by one."""

Key = tuple[str, str]
"""A picture's prompt and its id in the file."""

SAME_PICTURES = "two of their pictures have the same pixels"
BAD_PICTURES = "of pictures that cannot be read"


@dataclass(kw_only=True)
class LeftOut:
    """Votes that were not recorded, by reason."""

    counts: Counter[str] = field(default_factory=Counter[str])
    """How many votes, by reason."""
    places: dict[str, str] = field(default_factory=dict[str, str])
    """File and line of the first vote, by reason; absent if it is not known."""

    def add(self, reason: str, where: str = "") -> None:
        """Count one vote; `where` is its file and line."""
        self.counts[reason] += 1
        if where:
            self.places.setdefault(reason, where)

    def lines(self) -> list[str]:
        """Lines such as `3 votes left out: REASON (first: FILE, line 2)`, ordered by reason."""
        return [
            f"{count} votes left out: {reason}" + (f" (first: {self.places[reason]})" if reason in self.places else "")
            for reason, count in sorted(self.counts.items())
        ]


@dataclass(kw_only=True)
class Imported:
    """The result of an import or of a dry run, as counts."""

    new_pictures: int = 0
    known_pictures: int = 0
    new_votes: int = 0
    known_votes: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    """Judgements that were not recorded."""
    bad: int = 0
    """Number of records and pictures that cannot be read or are invalid."""
    first_bad: list[str] = field(default_factory=list[str])
    """For the first of them, where they are and what is wrong."""
    passed_over: Counter[str] = field(default_factory=Counter[str])
    """What the source contains and the format does not read, with counts."""

    def add_bad(self, message: str) -> None:
        """Count a bad record."""
        self.bad += 1
        if len(self.first_bad) < SHOWN:
            self.first_bad.append(message)


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an import goes, and its options."""

    store: Store
    root: Path
    """The run folder, to which the pictures' paths are relative."""
    name: str
    """The import's name: its pictures are added to the series import/NAME."""
    kind: AnnotatorKind = "human"
    """The kind of annotators whose kind a file does not give."""
    anonymous: str = ""
    """The handle for judgements of unknown annotators. A second judgement of the same pictures is recorded as by another annotator, handle#2, and so on."""
    take_pictures: bool = True
    """Whether pictures that are not in the store are added; otherwise judgements that name them are left out."""
    held_out: frozenset[str] = frozenset()
    """The run's held-out prompts, folded (`d3po.text.fold`). Judgements of them that are for training are left out."""
    trusted: bool = False
    """Whether a handle in the file may be that of an administrator of this store. Otherwise such a handle is changed, since a file may contain any name."""


def import_items(items: Iterable[Item | BadRecord], to: Destination) -> Imported:
    """Import pictures and judgements into the store, a batch at a time. Importing again adds nothing. Bad records are counted and left out.

    A picture is taken for one in the store if that has the same prompt and its file has the same bytes, as they are or after encoding the picture again. So
    judgements of a run's own pictures that were exported and come back count for its training. Other pictures are added as imported, without a trajectory.

    Args:
        items: the records, pictures before the judgements that name them.
        to: where they go.
    """
    return _taken(items, _OpenImport(to))


def rehearse(items: Iterable[Item | BadRecord], to: Destination) -> Imported:
    """Read and check everything as `import_items` does, without writing anything, and count what would be new and what is bad.

    It is not looked up in the store whether votes are already recorded, or contradict recorded ones.
    """
    return _taken(items, _Rehearsal(to))


def _taken(items: Iterable[Item | BadRecord], importer: "_OpenImport") -> Imported:
    batch: list[Item] = []
    for item in items:
        if isinstance(item, BadRecord):
            importer.done.add_bad(item.message)
        else:
            batch.append(item)
        if len(batch) == BATCH:
            importer.take(batch)
            batch = []
    importer.take(batch)
    return importer.done


class _OpenImport:
    def __init__(self, to: Destination) -> None:
        self._to, self._foreign, self.done = to, Foreign(to.store.database), Imported()
        self._images: dict[Key, tuple[int, int | None]] = {}
        """Image id and round in the store, by prompt and id in the file."""
        self._missing: set[Key] = set()
        self._unreadable: set[Key] = set()
        people = to.store.people.annotators()
        self._kinds = {each.handle: each.kind for each in people}
        self._reserved = {fold(OWNER), *(fold(each.handle) for each in people if each.role == "admin")}
        self._annotators: dict[tuple[str, AnnotatorKind], int] = {}
        self._times: Counter[tuple[object, ...]] = Counter()
        """How many judgements of the same pictures were anonymous."""

    def take(self, batch: Sequence[Item]) -> None:
        """Record a batch: its pictures, then its judgements."""
        named = {(item.prompt, item.id): item for item in batch if isinstance(item, ImportedPicture)}
        self._take_pictures({key: item for key, item in named.items() if key not in self._images and key not in self._unreadable})
        told = [item for item in batch if isinstance(item, ImportedJudgement) and self._is_sound(item)]
        self._take_events([item for item in told if item.event is not None])
        self._take_judgements([item for item in told if item.event is None])

    def _is_sound(self, item: ImportedJudgement) -> bool:
        """Whether a judgement can be recorded; if not, it is counted as bad or as left out."""
        keys = [(item.prompt, name) for name in item.pictures]
        if any(key in self._unreadable for key in keys):
            self.done.left_out.add(BAD_PICTURES, item.where)
        elif any(key in self._missing for key in keys):
            self.done.left_out.add("of pictures that are not in the run", item.where)
        elif item.purpose == "train" and fold(item.prompt) in self._to.held_out:
            self.done.left_out.add("of held-out prompts, which the run measures itself by and so must not learn from", item.where)
        else:
            try:
                return self._makes_sense(item)
            except (FormatError, VoteError) as error:
                self.done.add_bad(f"{item.where}: {error}" if item.where else str(error))
        return False

    def _makes_sense(self, item: ImportedJudgement) -> bool:
        """Whether a judgement compares different pictures; if not, it is counted as left out.

        Raises:
            FormatError: it names a picture that did not come before it.
            VoteError: it is invalid.
        """
        images = [image for image, _ in self._asked_of(item)]
        if len(set(images)) < len(images) or len(set(item.pictures)) < len(item.pictures):
            self.done.left_out.add(SAME_PICTURES, item.where)
            return False
        _check(item)
        handle, kind = self._handle(item), self._kind(item)
        if self._kinds.setdefault(handle, kind) != kind:
            raise VoteError(f"annotator {handle!r} is of kind {self._kinds[handle]} here, not {kind}; give the kind with --kind")
        return True

    def _take_pictures(self, new: dict[Key, ImportedPicture]) -> None:
        unknown = self._recognise(new, {})
        if not unknown:
            return
        if not self._to.take_pictures:
            self._missing |= unknown.keys()
            return
        clean: dict[Key, bytes] = {}
        for key, picture in unknown.items():
            try:
                clean[key] = self._cleaned(picture)
            except FormatError as error:
                self._unreadable.add(key)
                self.done.add_bad(str(error))
        self._bring({key: unknown[key] for key in clean}, clean)

    def _recognise(self, pictures: dict[Key, ImportedPicture], hashes: dict[Key, str]) -> dict[Key, ImportedPicture]:
        """Find pictures in the store by the given hashes, or else by their SHA-256. Returns those that are not in the store."""
        wanted = {key: hashes.get(key, picture.sha256) for key, picture in pictures.items()}
        found: dict[tuple[str, str], list[KnownPicture]] = defaultdict(list)
        for known in self._foreign.by_hash(sorted(set(wanted.values()))):
            found[known.prompt, known.sha256].append(known)
        left: dict[Key, ImportedPicture] = {}
        for key, picture in pictures.items():
            same = found[picture.prompt, wanted[key]]
            best = next((known for known in same if (known.series, known.number) == (picture.series, picture.number)), None)
            if best is None and not same:
                left[key] = picture
            else:
                chosen = best or same[0]
                self._images[key] = (chosen.id, chosen.round)
                self.done.known_pictures += 1
        return left

    def _cleaned(self, picture: ImportedPicture) -> bytes:
        """The picture decoded and encoded again, in d3po's encoding."""
        return encode(decode(_content(picture), _name_of(picture)))

    def _bring(self, pictures: dict[Key, ImportedPicture], clean: dict[Key, bytes]) -> None:
        """Find pictures in the store by their cleaned bytes, and add those that are new."""
        unknown = self._recognise(pictures, {key: hashlib.sha256(content).hexdigest() for key, content in clean.items()})
        if unknown:
            self._add(unknown, clean)

    def _add(self, pictures: dict[Key, ImportedPicture], contents: dict[Key, bytes]) -> None:
        series, keys = f"import/{self._to.name}", list(pictures)
        prompts = dict(zip(keys, self._to.store.pictures.add_prompts([prompt for prompt, _ in keys]), strict=True))
        numbers = self._foreign.next_numbers(series, sorted(set(prompts.values())))
        by_model: dict[str, dict[Key, NewPicture]] = defaultdict(dict)
        places: dict[tuple[int, str], Key] = {}
        for key, picture in pictures.items():
            digest, prompt = hashlib.sha256(contents[key]).hexdigest(), prompts[key]
            first = places.setdefault((prompt, digest), key)
            if first == key:
                path = f"images/{series}/{prompt:06}-{digest[:24]}.png"
                _write(self._to.root / path, contents[key])
                by_model[picture.model][key] = NewPicture(prompt=prompt, number=numbers[prompt], path=path, sha256=digest)
                numbers[prompt] += 1
        for model, chosen in by_model.items():
            ids = self._to.store.pictures.add_pictures(
                series=series, origin="imported", model=model, policy="", seed=None, pictures=list(chosen.values())
            )
            self._images |= {key: (id, None) for key, id in zip(chosen, ids, strict=True)}
            self.done.new_pictures += len(ids)
        for key in pictures:
            first = places[prompts[key], hashlib.sha256(contents[key]).hexdigest()]
            self._images[key] = self._images[first]

    def _take_events(self, told: Sequence[ImportedJudgement]) -> None:
        events = [self._stored(item) for item in told]
        known = self._foreign.known(events, {item.annotator: self._handle(item) for item in told})
        new: dict[str, StoredEvent] = {}
        for item, event in zip(told, events, strict=True):
            here, first = replace(event, annotator=self._handle(item)), new.get(event.id)
            if event.id not in known and first is None:
                new[event.id] = here
            elif known.get(event.id, first == here):
                self.done.known_votes += 1
            else:
                self.done.left_out.add("an event of the same id says something else here", item.where)
        if not new:
            return
        annotators = {event.annotator: self._annotator(event.annotator, event.annotator_kind) for event in new.values()}
        recorded = self._foreign.record(annotators, list(new.values()))
        self.done.new_votes += recorded.new
        self.done.known_votes += recorded.duplicates
        for reason, count in recorded.left_out.items():
            self.done.left_out.counts[reason] += count

    def _take_judgements(self, told: Sequence[ImportedJudgement]) -> None:
        by_annotator: dict[int, list[_Judgement]] = defaultdict(list)
        for item in told:
            if item.answer is not None:
                question, answer = self._asked(item), renamed(item.answer, self._ids(item))
                handle = self._numbered(self._handle(item), question)
                by_annotator[self._annotator(handle, self._kind(item))].append(_Judgement(question, answer, item.where))
        for annotator, judgements in by_annotator.items():
            self._record(annotator, judgements)

    def _record(self, annotator: int, judgements: Sequence["_Judgement"]) -> None:
        """Record judgements all at once. If one contradicts an earlier one, record them one by one and leave out those that do."""
        try:
            new = self._to.store.votes.record_judgements(annotator, [(each.question, each.answer) for each in judgements])
        except VoteConflictError:
            if len(judgements) == 1:
                self.done.left_out.add(
                    "the annotator has answered about these pictures before, differently or in the app", judgements[0].where
                )
            else:
                for judgement in judgements:
                    self._record(annotator, [judgement])
            return
        self.done.new_votes += new
        self.done.known_votes += len(judgements) - new

    def _handle(self, item: ImportedJudgement) -> str:
        """The annotator's handle in this store. The import's name is added to a handle that is an administrator's, since a file may contain any name."""
        if self._to.trusted or fold(item.annotator) not in self._reserved:
            return item.annotator
        return clean_handle(f"{item.annotator}:{self._to.name}")

    def _numbered(self, handle: str, question: NewQuestion) -> str:
        if handle != self._to.anonymous:
            return handle
        what = (question.kind, question.purpose, tuple(sorted(question.images)))
        self._times[what] += 1
        return handle if self._times[what] == 1 else f"{handle}#{self._times[what]}"

    def _kind(self, item: ImportedJudgement) -> AnnotatorKind:
        return self._to.kind if item.annotator_kind == "human" and item.event is None else item.annotator_kind

    def _annotator(self, handle: str, kind: AnnotatorKind) -> int:
        if (handle, kind) not in self._annotators:
            self._annotators[handle, kind] = self._to.store.people.annotator(handle, kind).id
        return self._annotators[handle, kind]

    def _ids(self, item: ImportedJudgement) -> dict[str, int]:
        return {name: image for name, (image, _) in zip(item.pictures, self._asked_of(item), strict=True)}

    def _asked_of(self, item: ImportedJudgement) -> list[tuple[int, int | None]]:
        """Image id and round of the pictures that a judgement is about.

        Raises:
            FormatError: it names a picture that did not come before it.
        """
        strangers = [name for name in item.pictures if (item.prompt, name) not in self._images]
        if strangers:
            raise FormatError(f"a judgement of {item.prompt[:60]!r} names picture {strangers[0][:16]}, which did not come before it")
        return [self._images[item.prompt, name] for name in item.pictures]

    def _asked(self, item: ImportedJudgement) -> NewQuestion:
        """The judgement's question. It belongs to the round in which all its pictures were sampled, if there is one."""
        images = self._asked_of(item)
        rounds = {round for _, round in images}
        return NewQuestion(
            kind=item.kind,
            purpose=item.purpose,
            images=tuple(id for id, _ in images),
            round=rounds.pop() if len(rounds) == 1 else None,
            gold_answer=None if item.expected is None else renamed(item.expected, self._ids(item)),
        )

    def _stored(self, item: ImportedJudgement) -> StoredEvent:
        return _event_of(item, self._asked(item), self._ids(item))


class _Rehearsal(_OpenImport):
    """A dry run: reads and checks as an import does, gives new pictures temporary ids, and writes nothing."""

    def __init__(self, to: Destination) -> None:
        super().__init__(to)
        self._pixels: dict[tuple[str, bytes], int] = {}
        """Temporary id by prompt and hash of the pixels."""

    def _cleaned(self, picture: ImportedPicture) -> bytes:
        """A hash of the pixels, which takes much less time than encoding them."""
        seen = decode(_content(picture), _name_of(picture))
        return hashlib.sha256(f"{seen.size}".encode() + seen.tobytes()).digest()

    def _bring(self, pictures: dict[Key, ImportedPicture], clean: dict[Key, bytes]) -> None:
        for key in pictures:
            known = len(self._pixels)
            self._images[key] = (self._pixels.setdefault((key[0], clean[key]), -1 - known), None)
            self.done.new_pictures += len(self._pixels) - known

    def _take_events(self, told: Sequence[ImportedJudgement]) -> None:
        self.done.new_votes += len(told)

    def _take_judgements(self, told: Sequence[ImportedJudgement]) -> None:
        self.done.new_votes += len(told)


@dataclass(frozen=True)
class _Judgement:
    question: NewQuestion
    answer: Answer
    where: str


def import_name(source: Path) -> str:
    """A name for an import from the source's file name, with characters that are valid in paths and handles."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem).strip(".-")[:40] or "import"


def _check(item: ImportedJudgement) -> None:
    """Check a judgement's question, answer and event.

    Raises:
        VoteError: one of them is invalid; the message names pictures by their position, from 1.
    """
    place = {name: number for number, name in enumerate(item.pictures, 1)}
    gold = None if item.expected is None else renamed(item.expected, place)
    question = NewQuestion(kind=item.kind, purpose=item.purpose, images=tuple(place.values()), round=None, gold_answer=gold)
    check_question(question)
    if item.answer is not None:
        check_answer(item.kind, question.images, renamed(item.answer, place))
    if item.event is not None:
        check_event(_event_of(item, question, place))


def _event_of(item: ImportedJudgement, question: NewQuestion, ids: dict[str, int]) -> StoredEvent:
    event = item.event
    assert event is not None
    return StoredEvent(
        id=event.id,
        assignment=event.assignment,
        kind=question.kind,
        purpose=question.purpose,
        round=question.round,
        prompt=0,
        shown=question.images,
        expected=question.gold_answer,
        annotator=item.annotator,
        annotator_kind=item.annotator_kind,
        answer=None if item.answer is None else renamed(item.answer, ids),
        supersedes=event.supersedes,
        rt_ms=event.rt_ms,
        client=event.client,
        payload_hash=event.payload_hash,
        received_at=event.received_at,
    )


def _content(picture: ImportedPicture) -> bytes:
    if picture.content is None:
        raise FormatError(
            f"{_name_of(picture)}: the picture is given by its hash alone, {picture.sha256[:16]}, but it is not in the run; "
            "import into the run it came from, or from an export with pictures"
        )
    return picture.content


def _name_of(picture: ImportedPicture) -> str:
    return picture.where or f"picture {picture.sha256[:16]} of {picture.prompt[:60]!r}"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; free some space or mend the permissions") from error
