"""Votes and pictures between files and stores: nothing lost, nothing doubled, the run's own pictures recognised."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3po.errors import CorruptFileError, StorageError
from d3po.exchange.exporting import export_items
from d3po.exchange.formats import FORMATS
from d3po.exchange.formats.base import Reading
from d3po.exchange.formats.neutral import BadRecord, ImportedPicture, Item, picture_of
from d3po.exchange.importing import Destination, Imported, import_items, import_name
from d3po.preferences.conversion import comparisons_of
from d3po.preferences.records import Answer, Cast, NewQuestion
from d3po.store import Store
from tests.unit.conftest import emptied
from tests.unit.exchange.formats.items import name, picture, png, said, stream, won
from tests.unit.exchange.runs import ask_and_vote, ids, pair, sampled_store, wins

MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Make a run's store in a folder of its own."""
    made: list[Store] = []

    def make(folder: str, **given: Any) -> Store:
        (tmp_path / folder).mkdir()
        made.append(sampled_store(tmp_path / folder, **given))
        return made[-1]

    yield make
    for store in made:
        store.close()


def root(store: Store) -> Path:
    """The run folder of a store in a file; a server's database lies in none."""
    return (store.database.file or Path("nowhere/d3po.db")).parent


def bring(store: Store, items: Iterable[Item | BadRecord], **given: Any) -> Imported:
    own: dict[str, Any] = {"root": root(store), "name": "test", "anonymous": "import:test"}
    return import_items(items, Destination(store=store, **(own | given)))


def through(kind: str, giver: Store, taker: Store, folder: Path, *, pictures: bool = True, **given: Any) -> Imported:
    """Export, then import."""
    items = export_items(giver, root(giver), events=kind == "jsonl", pictures=pictures)
    target = folder / f"out-{kind}"
    FORMATS[kind].write(items, target)
    images = target if target.is_dir() else folder
    return bring(taker, FORMATS[kind].read(Reading(source=target, images=images, annotator="import:test")), **given)


def told(store: Store) -> list[tuple[object, ...]]:
    """AssignmentCache votes in terms that mean the same in every store."""
    handles = {each.id: each.handle for each in store.people.annotators()}
    hashes = {image.id: image.path for image in store.pictures.images(0)}
    return sorted(
        (
            vote.id, vote.kind, vote.purpose, vote.round, handles[vote.annotator], [hashes[image] for image in vote.shown],
            vote.answer.outcome, hashes.get(vote.answer.winner or 0), sorted((hashes[i], v) for i, v in vote.answer.values.items()),
            vote.answer.reason, vote.rt_ms, vote.received_at,
        )
        for vote in store.votes.current()
    )  # fmt: skip


def fill(store: Store) -> None:
    """Votes of several kinds, one replaced and one withdrawn."""
    cats, dogs = ids(store), ids(store, 1)
    ask_and_vote(store, "ada", pair(cats[0], cats[1]), wins(cats[1]))
    ask_and_vote(store, "bob", pair(cats[0], cats[1]), Answer(outcome="tie"))
    ask_and_vote(store, "ada", pair(cats[2], cats[3]), Answer(outcome="flag", reason="broken"))
    rank = NewQuestion(kind="rank", purpose="train", images=tuple(dogs), round=0)
    ask_and_vote(store, "ada", rank, Answer(outcome="rank", values={image: 1.0 + place // 2 for place, image in enumerate(dogs)}))
    gold = NewQuestion(kind="pair", purpose="gold", images=(dogs[0], dogs[1]), round=0, gold_answer=wins(dogs[0]))
    store.questions.ask([gold])
    ask_and_vote(store, "bob", pair(dogs[2], dogs[3]), wins(dogs[3]))
    vote = ask_and_vote(store, "cleo", pair(cats[1], cats[2]), wins(cats[1]))
    store.votes.retract("5d1f4b7e-0000-4000-8000-000000000001", vote, store.people.annotator("cleo", "human").id)


def test_our_own_log_brings_votes_over_whole(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    fill(giver)
    done = through("jsonl", giver, taker, tmp_path)
    assert told(taker) == told(giver)
    assert (done.new_votes, done.known_votes, done.new_pictures, dict(done.left_out.counts)) == (7, 0, 0, {})


def test_our_own_log_goes_into_postgresql_and_back(make_store: MakeStore, postgresql_url: str, tmp_path: Path) -> None:
    giver, back, elsewhere = make_store("giver"), make_store("back"), tmp_path / "elsewhere"
    fill(giver)
    elsewhere.mkdir()
    taker = sampled_store(elsewhere, url=emptied(postgresql_url))
    for expected in (7, 0):
        assert bring(taker, export_items(giver, root(giver), events=True, pictures=True), root=elsewhere).new_votes == expected
    assert told(taker) == told(giver)
    assert bring(back, export_items(taker, elsewhere, events=True, pictures=True)).new_votes == 7
    assert told(back) == told(giver)
    new = bring(taker, stream([won(1, 2, prompt="a fox"), won(1, 2, prompt="a fox", annotator="bob")]), root=elsewhere)
    assert (new.new_votes, new.new_pictures) == (2, 2)
    taker.close()


def test_importing_again_adds_nothing(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    fill(giver)
    through("jsonl", giver, taker, tmp_path)
    before = told(taker)
    again = through("jsonl", giver, taker, tmp_path)
    assert (again.new_votes, again.known_votes, dict(again.left_out.counts)) == (0, 7, {})
    assert told(taker) == before


def test_log_of_a_run_into_itself_adds_nothing(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("run")
    fill(store)
    before = told(store)
    assert through("jsonl", store, store, tmp_path).new_votes == 0
    assert told(store) == before


def test_votes_given_after_the_first_merge_come_with_the_second(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    fill(giver)
    through("jsonl", giver, taker, tmp_path)
    cats = ids(giver)
    (assigned,) = [
        each for each in giver.questions.lease(giver.people.annotator("cleo", "human").id, 9) if set(each.shown) == {cats[1], cats[2]}
    ]
    ask_and_vote(giver, "bob", pair(cats[2], cats[3]), wins(cats[2]))
    giver.votes.cast(Cast(id="5d1f4b7e-0000-4000-8000-000000000002", assignment=assigned.assignment, annotator=3, answer=wins(cats[2])))
    done = through("jsonl", giver, taker, tmp_path)
    assert done.new_votes == 2
    assert told(taker) == told(giver)


def test_pictures_of_another_run_come_with_the_log_without_trajectories(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver", seed=1), make_store("taker")
    fill(giver)
    done = through("jsonl", giver, taker, tmp_path)
    assert (done.new_votes, done.new_pictures) == (7, 8)
    brought = taker.pictures.series("import/test")
    assert {each.origin for each in brought} == {"imported"}
    assert {(root(taker) / each.path).read_bytes() for each in brought} == {
        (root(giver) / each.path).read_bytes() for each in giver.pictures.images(0)
    }
    assert {vote.round for vote in taker.votes.current()} == {None}
    assert taker.batches.claim(0) == []


def test_merge_leaves_out_votes_on_pictures_that_are_not_here(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver", images=4), make_store("taker", images=3)
    fill(giver)
    done = bring(taker, export_items(giver, root(giver), events=True, pictures=False), take_pictures=False)
    assert done.new_votes == 4  # two on cats 0 and 1; one on cats 1 and 2, and its withdrawal
    assert dict(done.left_out.counts) == {"of pictures that are not in the run": 3}
    assert taker.pictures.series("import/test") == []


def test_annotator_asked_the_same_in_both_runs_counts_once(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    for store in (giver, taker):
        cats = ids(store)
        ask_and_vote(store, "ada", pair(cats[0], cats[1]), wins(cats[0]))
    done = through("jsonl", giver, taker, tmp_path)
    assert dict(done.left_out.counts) == {"the annotator was asked the same here": 1}
    assert taker.votes.count() == 1


def test_votes_from_elsewhere_fill_the_slots_of_a_question(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    for store in (giver, taker):
        store.questions.ask([pair(*ids(store)[:2], overlap=1)])
    ask_and_vote(giver, "ada", pair(*ids(giver)[:2], overlap=1), wins(ids(giver)[0]))
    assert taker.questions.progress(round=0).open == 1
    through("jsonl", giver, taker, tmp_path)
    assert taker.questions.progress(round=0).open == 0
    assert taker.questions.lease(taker.people.annotator("bob", "human").id, 5) == []


def test_withdrawal_from_elsewhere_has_the_question_asked_again(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    for store in (giver, taker):
        store.questions.ask([pair(*ids(store)[:2], overlap=1)])
    vote = ask_and_vote(giver, "ada", pair(*ids(giver)[:2], overlap=1), wins(ids(giver)[0]))
    through("jsonl", giver, taker, tmp_path)
    giver.votes.retract("5d1f4b7e-0000-4000-8000-000000000003", vote, giver.people.annotator("ada", "human").id)
    assert through("jsonl", giver, taker, tmp_path).new_votes == 1
    assert taker.votes.count() == 0
    assert taker.questions.progress(round=0).open == 1
    assert len(taker.questions.lease(taker.people.annotator("bob", "human").id, 5)) == 1


def test_several_people_from_elsewhere_take_a_slot_each(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    for store in (giver, taker):
        store.questions.ask([pair(*ids(store)[:2], overlap=3)])
    for who in ("ada", "bob"):
        ask_and_vote(giver, who, pair(*ids(giver)[:2]), wins(ids(giver)[0]))
    through("jsonl", giver, taker, tmp_path)
    progress = taker.questions.progress(round=0)
    assert (progress.done, progress.open) == (2, 1)


def test_claimed_votes_include_those_that_came_home(make_store: MakeStore, tmp_path: Path) -> None:
    giver, taker = make_store("giver"), make_store("taker")
    fill(giver)
    through("label_studio", giver, taker, tmp_path, pictures=False)
    claimed = taker.batches.claim(0)
    assert sorted((vote.kind, vote.answer.outcome) for vote in claimed) == [("pair", "tie"), ("pair", "win"), ("pair", "win")]
    assert comparisons_of(claimed) == comparisons_of(vote for vote in giver.votes.current() if vote.kind == "pair")


@pytest.mark.parametrize("kind", ["pickapic", "jsonl_pairs", "folders", "label_studio", "argilla"])
def test_pairs_come_home_to_the_pictures_of_the_run(kind: str, make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("run")
    cats = ids(store)
    ask_and_vote(store, "ada", pair(cats[0], cats[1]), wins(cats[1]))
    taker = make_store("copy")
    done = through(kind, store, taker, tmp_path)
    assert (done.new_votes, done.new_pictures, done.known_pictures) == (1, 0, 2)
    assert comparisons_of(taker.votes.current()) == comparisons_of(store.votes.current())
    assert through_again(kind, taker, tmp_path).new_votes == 0


def through_again(kind: str, taker: Store, folder: Path) -> Imported:
    target = folder / f"out-{kind}"
    images = target if target.is_dir() else folder
    return bring(taker, FORMATS[kind].read(Reading(source=target, images=images, annotator="import:test")))


def test_marks_come_home_from_the_layout_of_the_authors(make_store: MakeStore, tmp_path: Path) -> None:
    store, taker = make_store("run"), make_store("copy")
    cats = ids(store)
    grid = NewQuestion(kind="grid", purpose="train", images=tuple(cats), round=0)
    ask_and_vote(store, "ada", grid, Answer(outcome="marks", values={cats[1]: 1.0}))
    assert through("d3po_json", store, taker, tmp_path).new_votes == 1
    assert comparisons_of(taker.votes.current()) == comparisons_of(store.votes.current())


def test_votes_of_nobody_named_are_each_anothers(make_store: MakeStore) -> None:
    store = make_store("run")
    judgements = [won(1, 2, annotator="import:test"), won(1, 2, annotator="import:test"), won(2, 1, annotator="import:test")]
    done = bring(store, stream(judgements))
    assert done.new_votes == 3
    assert [each.handle for each in store.people.annotators()] == ["import:test", "import:test#2", "import:test#3"]
    (comparison,) = comparisons_of(store.votes.current())
    assert comparison.weight == 3
    assert sorted([comparison.target, 1 - comparison.target]) == pytest.approx([1 / 3, 2 / 3])
    assert bring(store, stream(judgements)).new_votes == 0


def test_somebody_named_who_says_otherwise_later_keeps_the_first_word(make_store: MakeStore) -> None:
    store = make_store("run")
    done = bring(store, stream([won(1, 2), won(3, 4), won(2, 1), won(1, 2)]))
    assert (done.new_votes, done.known_votes) == (2, 1)
    assert done.left_out.counts.total() == 1


def test_pictures_are_encoded_anew_and_stored_once(make_store: MakeStore) -> None:
    store, buffer = make_store("run"), io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, format="JPEG", comment=b"secret")
    photograph = picture_of(buffer.getvalue(), "a fox", model="camera")
    other = picture(7, "a fox")
    judgement = said("pair", (7, 7), "tie", prompt="a fox")
    judgement = replace(judgement, pictures=(photograph.id, other.id))
    done = bring(store, [photograph, other, judgement])
    assert (done.new_pictures, done.new_votes) == (2, 1)
    stored = {each.model: (root(store) / each.path).read_bytes() for each in store.pictures.series("import/test")}
    assert stored["camera"].startswith(b"\x89PNG")
    assert b"secret" not in stored["camera"]
    assert bring(store, [photograph, other, judgement]).new_pictures == 0


def test_one_picture_under_two_prompts_is_two_pictures(make_store: MakeStore) -> None:
    store = make_store("run")
    items = stream([won(1, 2, prompt="p"), won(1, 2, prompt="q")])
    assert bring(store, items).new_pictures == 4
    assert {(each.prompt, each.number) for each in store.pictures.series("import/test")} == {("p", 0), ("p", 1), ("q", 0), ("q", 1)}


def test_models_and_rules_are_not_taken_for_people(make_store: MakeStore) -> None:
    store = make_store("run")
    bring(store, stream([won(1, 2, annotator="gpt")]), kind="model")
    assert [(each.handle, each.kind) for each in store.people.annotators()] == [("gpt", "model")]


def bad(done: Imported) -> str:
    """What is wrong with the one bad record."""
    (message,) = done.first_bad
    assert done.bad == 1
    return message


def test_picture_known_by_a_hash_that_the_run_does_not_have_is_bad(make_store: MakeStore) -> None:
    done = bring(make_store("run"), [ImportedPicture(id=name(777), prompt="a cat", sha256=name(777), where="file, line 2, field file")])
    assert bad(done).startswith("file, line 2, field file: the picture is given by its hash alone")


def test_judgement_before_its_picture_is_bad(make_store: MakeStore) -> None:
    assert "which did not come before it" in bad(bring(make_store("run"), [won(1, 2)]))


def test_broken_picture_is_named_and_only_its_votes_are_left_out(make_store: MakeStore) -> None:
    store = make_store("run")
    broken = picture_of(b"not a picture", "a cat", where="file, line 3, field chosen")
    about = replace(won(1, 2, where="file, line 3"), pictures=(broken.id, name(2)))
    done = bring(store, [*stream([won(1, 2)]), broken, about])
    assert bad(done) == "file, line 3, field chosen: not a whole PNG, JPEG or WebP picture (it begins with b'not a pi')"
    assert done.left_out.lines() == ["1 votes left out: of pictures that cannot be read (first: file, line 3)"]
    assert (done.new_votes, store.votes.count()) == (1, 1)


def test_stream_longer_than_a_batch_is_taken_whole(make_store: MakeStore) -> None:
    store = make_store("run")
    judgements = [won(a, b, prompt=f"p{n}") for n in range(60) for a, b in ((1, 2), (2, 3), (3, 4))]
    done = bring(store, stream(judgements))
    assert (done.new_votes, done.new_pictures) == (180, 240)
    assert sum(1 for _ in export_items(store, root(store), events=False, pictures=True)) == 420


def test_changed_picture_is_not_exported(make_store: MakeStore) -> None:
    store = make_store("run")
    fill(store)
    (root(store) / "images/round-000/000-001.png").write_bytes(png(5))
    with pytest.raises(CorruptFileError, match="is not the picture that was recorded"):
        list(export_items(store, root(store), events=True, pictures=True))
    assert list(export_items(store, root(store), events=True, pictures=False))


def test_full_disk_is_a_plain_message(make_store: MakeStore) -> None:
    store = make_store("run")
    (root(store) / "images" / "import").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        bring(store, stream([won(1, 2, prompt="a fox")]))
    assert store.votes.count() == 0


@pytest.mark.parametrize(
    ("path", "made"), [("a/ours.jsonl", "ours"), ("dir/my set (1).csv", "my-set-1"), ("..", "import"), ("é.json", "import")]
)
def test_import_gets_a_name_that_may_stand_in_a_path(path: str, made: str) -> None:
    assert import_name(Path(path)) == made
