"""From files into the store: pictures are found again by their content or brought in, and judgements become votes."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d3po.errors import FormatError, StorageError, VoteConflictError
from d3po.preferences.formats.images import encode_anew
from d3po.preferences.formats.neutral import ImportedJudgement, ImportedPicture, Item, renamed
from d3po.preferences.records import AnnotatorKind, Answer, NewQuestion
from d3po.preferences.store import NewPicture, Store
from d3po.preferences.store.foreign import Foreign, KnownPicture, StoredEvent
from d3po.text import fold

BATCH = 200
"""Items recorded at once."""

Key = tuple[str, str]
"""A picture's prompt and its id in the file."""


@dataclass(kw_only=True)
class Imported:
    """What an import did."""

    new_pictures: int = 0
    known_pictures: int = 0
    new_votes: int = 0
    known_votes: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Judgements that were not recorded, by reason."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an import goes."""

    store: Store
    root: Path
    """The run folder; pictures' paths are relative to it."""
    name: str
    """The import's own name: pictures go to the series import/NAME."""
    kind: AnnotatorKind = "human"
    """Of annotators that a file does not say the kind of."""
    anonymous: str = ""
    """The handle for judgements of unknown annotators. Each further judgement of the same pictures is taken to be another one's, handle#2."""
    take_pictures: bool = True
    """Whether pictures that are not in the store are brought in; else judgements that name them are left out."""
    held_out: frozenset[str] = frozenset()
    """Prompts, folded (`d3po.text.fold`), that the run measures itself by: judgements for training that are of them are left out."""


def import_items(items: Iterable[Item], to: Destination) -> Imported:
    """Bring pictures and judgements into the store, a batch at a time. Doing it again adds nothing.

    A picture is the one in the store whose file has the same bytes and the same prompt, or the same bytes once encoded anew; so judgements of a
    run's own pictures, sent out and come home, count for its training. Others are stored without trajectory, as imported.

    Args:
        items: pictures before the judgements that name them.
        to: where they go.

    Raises:
        FormatError: a picture cannot be decoded, or is known by a hash that the store does not have.
        VoteError: a judgement makes no sense.
    """
    importer, batch = _Importer(to), list[Item]()
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            importer.take(batch)
            batch = []
    importer.take(batch)
    return importer.done


class _Importer:
    def __init__(self, to: Destination) -> None:
        self._to, self._foreign, self.done = to, Foreign(to.store.database), Imported()
        self._images: dict[Key, tuple[int, int | None]] = {}
        """Id in the store and round, by prompt and id in the file."""
        self._missing: set[Key] = set()
        self._annotators: dict[tuple[str, AnnotatorKind], int] = {}
        self._times: Counter[tuple[object, ...]] = Counter()
        """How often the same pictures were judged anonymously."""

    def take(self, batch: Sequence[Item]) -> None:
        """Record a batch: its pictures, then its judgements."""
        self._take_pictures([item for item in batch if isinstance(item, ImportedPicture) and (item.prompt, item.id) not in self._images])
        told: list[ImportedJudgement] = []
        for item in batch:
            if isinstance(item, ImportedJudgement):
                if any((item.prompt, name) in self._missing for name in item.pictures):
                    self.done.left_out["of pictures that are not in the run"] += 1
                elif item.purpose == "train" and fold(item.prompt) in self._to.held_out:
                    self.done.left_out["of held-out prompts, which the run measures itself by and so must not learn from"] += 1
                else:
                    told.append(item)
        self._take_events([item for item in told if item.event is not None])
        self._take_judgements([item for item in told if item.event is None])

    def _take_pictures(self, new: Sequence[ImportedPicture]) -> None:
        unknown = self._recognise({(picture.prompt, picture.id): picture for picture in new}, {})
        if not unknown:
            return
        if not self._to.take_pictures:
            self._missing |= unknown.keys()
            return
        clean = {key: self._clean(picture) for key, picture in unknown.items()}
        unknown = self._recognise(unknown, {key: hashlib.sha256(content).hexdigest() for key, content in clean.items()})
        self._add(unknown, clean)

    def _recognise(self, pictures: dict[Key, ImportedPicture], hashes: dict[Key, str]) -> dict[Key, ImportedPicture]:
        """Find pictures in the store, by these hashes or their own; those that are not there are left."""
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

    def _clean(self, picture: ImportedPicture) -> bytes:
        if picture.content is None:
            raise FormatError(
                f"picture {picture.sha256[:16]} of {picture.prompt[:60]!r} is given by its hash alone, but it is not in the run; "
                "import into the run it came from, or from an export with pictures"
            )
        return encode_anew(picture.content, f"picture {picture.sha256[:16]} of {picture.prompt[:60]!r}")

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
        if not told:
            return
        annotators = {item.annotator: self._annotator(item.annotator, item.annotator_kind) for item in told}
        recorded = self._foreign.record(annotators, [self._stored(item) for item in told])
        self.done.new_votes += recorded.new
        self.done.known_votes += recorded.duplicates
        self.done.left_out += recorded.left_out

    def _take_judgements(self, told: Sequence[ImportedJudgement]) -> None:
        by_annotator: dict[int, list[tuple[NewQuestion, Answer]]] = defaultdict(list)
        for item in told:
            if item.answer is not None:
                question, answer = self._asked(item), renamed(item.answer, self._ids(item))
                handle = self._handle(item, question)
                by_annotator[self._annotator(handle, self._kind(item))].append((question, answer))
        for annotator, judgements in by_annotator.items():
            self._record(annotator, judgements)

    def _record(self, annotator: int, judgements: Sequence[tuple[NewQuestion, Answer]]) -> None:
        """All at once; where one of them contradicts an earlier one, one by one, and those are left out."""
        try:
            new = self._to.store.votes.record_judgements(annotator, judgements)
        except VoteConflictError:
            if len(judgements) == 1:
                self.done.left_out["the annotator has judged these pictures before, otherwise or in the app"] += 1
            else:
                for judgement in judgements:
                    self._record(annotator, [judgement])
            return
        self.done.new_votes += new
        self.done.known_votes += len(judgements) - new

    def _handle(self, item: ImportedJudgement, question: NewQuestion) -> str:
        if item.annotator != self._to.anonymous:
            return item.annotator
        what = (question.kind, question.purpose, tuple(sorted(question.images)))
        self._times[what] += 1
        return item.annotator if self._times[what] == 1 else f"{item.annotator}#{self._times[what]}"

    def _kind(self, item: ImportedJudgement) -> AnnotatorKind:
        return self._to.kind if item.annotator_kind == "human" else item.annotator_kind

    def _annotator(self, handle: str, kind: AnnotatorKind) -> int:
        if (handle, kind) not in self._annotators:
            self._annotators[handle, kind] = self._to.store.people.annotator(handle, kind).id
        return self._annotators[handle, kind]

    def _ids(self, item: ImportedJudgement) -> dict[str, int]:
        return {name: self._image(item.prompt, name)[0] for name in item.pictures}

    def _image(self, prompt: str, name: str) -> tuple[int, int | None]:
        try:
            return self._images[prompt, name]
        except KeyError as error:
            raise FormatError(f"a judgement of {prompt[:60]!r} names picture {name[:16]}, which did not come before it") from error

    def _asked(self, item: ImportedJudgement) -> NewQuestion:
        """The question; it serves the round that all its pictures were sampled in, if there is one."""
        images = [self._image(item.prompt, name) for name in item.pictures]
        rounds = {round for _, round in images}
        return NewQuestion(
            kind=item.kind,
            purpose=item.purpose,
            images=tuple(id for id, _ in images),
            round=rounds.pop() if len(rounds) == 1 else None,
            gold_answer=None if item.expected is None else renamed(item.expected, self._ids(item)),
        )

    def _stored(self, item: ImportedJudgement) -> StoredEvent:
        question, event = self._asked(item), item.event
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
            answer=None if item.answer is None else renamed(item.answer, self._ids(item)),
            supersedes=event.supersedes,
            rt_ms=event.rt_ms,
            client=event.client,
            payload_hash=event.payload_hash,
            received_at=event.received_at,
        )


def import_name(source: Path) -> str:
    """A name for an import that may stand in a path and in a handle."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem).strip(".-")[:40] or "import"


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
