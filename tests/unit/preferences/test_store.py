"""The store: what is written comes back, nothing is doubled, and judgements are by id."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from d3po.preferences.records import Comparison
from d3po.preferences.store import Store

PNG = "images/round-{}/{}.png"


@pytest.fixture
def store(tmp_path: Path):
    store = Store.in_folder(tmp_path)
    yield store
    store.close()


@pytest.fixture
def images(store: Store) -> list[int]:
    """Two prompts with two images each, in round 0; their ids."""
    fill(store)
    return [image.id for image in store.images(0)]


def fill(store: Store, *, round: int = 0, number: int = 0) -> None:
    cat, dog = store.add_prompts(["a cat", "a dog"])
    images = [(prompt, image, PNG.format(round, f"{number}-{prompt}-{image}")) for prompt in (cat, dog) for image in (0, 1)]
    store.add_shard(round=round, number=number, path=f"rollouts/{round}-{number}.safetensors", checksum="c" * 64, images=images)


def said(a: int, b: int, target: float = 1.0, *, weight: float = 1.0, annotator: str = "ada") -> Comparison:
    return Comparison(image_a=a, image_b=b, target=target, weight=weight, annotator=annotator)


def test_prompt_has_one_id_however_often_it_is_added(store: Store) -> None:
    first = store.add_prompts(["a cat", "a dog", "a cat"])
    assert first[0] == first[2] != first[1]
    assert store.add_prompts(["a dog", "a fox"])[0] == first[1]


def test_shard_and_its_images_come_back_in_row_order(store: Store) -> None:
    fill(store)
    (shard,) = store.shards(0)
    assert (shard.round, shard.number, shard.path, shard.checksum) == (0, 0, "rollouts/0-0.safetensors", "c" * 64)
    images = store.images(0)
    assert [(image.prompt, image.number, image.row, image.shard_id) for image in images] == [
        ("a cat", 0, 0, shard.id), ("a cat", 1, 1, shard.id), ("a dog", 0, 2, shard.id), ("a dog", 1, 3, shard.id),
    ]  # fmt: skip


def test_rounds_do_not_see_each_other(store: Store) -> None:
    fill(store, round=0)
    fill(store, round=1)
    first, second = store.images(0), store.images(1)
    store.add_comparisons([said(first[0].id, first[1].id), said(second[0].id, second[1].id, 0.0)])
    assert {image.id for image in first}.isdisjoint(image.id for image in second)
    assert [comparison.target for comparison in store.comparisons(0)] == [1.0]
    assert [comparison.target for comparison in store.comparisons(1)] == [0.0]
    assert store.images(2) == store.shards(2) == store.comparisons(2) == []
    assert store.count_comparisons() == 2


def test_shards_come_in_order_of_their_numbers(store: Store) -> None:
    first, second, third = store.add_prompts(["x", "y", "z"])
    for number, prompt in ((2, third), (0, first), (1, second)):
        store.add_shard(round=0, number=number, path=f"{number}", checksum="", images=[(prompt, 0, f"{number}.png")])
    assert [shard.number for shard in store.shards(0)] == [0, 1, 2]
    assert [image.prompt for image in store.images(0)] == ["x", "y", "z"]


def test_shard_recorded_twice_is_refused_and_leaves_no_images(store: Store, images: list[int]) -> None:
    (prompt,) = store.add_prompts(["a fox"])
    with pytest.raises(IntegrityError):
        store.add_shard(round=0, number=0, path="other.safetensors", checksum="", images=[(prompt, 0, "fox.png")])
    assert [image.id for image in store.images(0)] == images


def test_image_recorded_twice_takes_its_shard_back(store: Store, images: list[int]) -> None:
    (cat,) = store.add_prompts(["a cat"])
    with pytest.raises(IntegrityError):
        store.add_shard(round=0, number=1, path="other.safetensors", checksum="", images=[(cat, 0, "again.png")])
    assert [shard.number for shard in store.shards(0)] == [0]


@settings(max_examples=50, deadline=None)
@given(
    target=st.floats(0, 1), weight=st.floats(0, 10), annotator=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
)
def test_comparison_comes_back_as_it_was_said(target: float, weight: float, annotator: str) -> None:
    store = Store("sqlite://")
    fill(store)
    a, b = (image.id for image in store.images(0)[:2])
    comparison = said(a, b, target, weight=weight, annotator=annotator)
    store.add_comparisons([comparison])
    assert store.comparisons(0) == [comparison]
    store.close()


@pytest.mark.parametrize(("target", "turned"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.75, 0.25)])
def test_comparison_said_the_other_way_round_is_stored_turned(store: Store, images: list[int], target: float, turned: float) -> None:
    store.add_comparisons([said(images[1], images[0], target)])
    assert store.comparisons(0) == [said(images[0], images[1], turned)]


def test_judgements_are_recorded_all_or_none(store: Store, images: list[int]) -> None:
    a, b, c, _ = images
    store.add_comparisons([said(a, b)])
    with pytest.raises(IntegrityError):
        store.add_comparisons([said(a, c), said(b, a, 0.0)])
    assert store.comparisons(0) == [said(a, b)]


def test_each_annotator_judges_a_pair_for_himself(store: Store, images: list[int]) -> None:
    a, b, *_ = images
    store.add_comparisons([said(a, b, annotator="ada"), said(a, b, 0.0, annotator="bob")])
    assert [(c.annotator, c.target) for c in store.comparisons(0)] == [("ada", 1.0), ("bob", 0.0)]


def test_comparison_of_an_image_that_is_not_there_is_refused(store: Store, images: list[int]) -> None:
    with pytest.raises(IntegrityError):
        store.add_comparisons([said(images[0], 999)])


def test_nothing_to_record_is_no_error(store: Store) -> None:
    store.add_comparisons([])
    assert store.count_comparisons() == 0


def test_opened_again_the_store_still_knows(tmp_path: Path) -> None:
    first = Store.in_folder(tmp_path)
    fill(first)
    kept = first.images(0)
    first.close()
    second = Store.in_folder(tmp_path)
    assert second.images(0) == kept
    second.close()


def test_one_writer_does_not_stop_readers(store: Store, tmp_path: Path, images: list[int]) -> None:
    reader = Store.in_folder(tmp_path)
    store.add_comparisons([said(images[0], images[1])])
    assert reader.count_comparisons() == 1
    assert (tmp_path / "d3po.db-wal").exists()
    reader.close()


def test_image_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="image 7 is compared with itself"):
        said(7, 7)


@pytest.mark.parametrize("target", [-0.1, 1.1, float("nan"), float("inf")])
def test_target_outside_a_share_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="a share of preference"):
        said(1, 2, target)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_negative_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="it must be 0 or more"):
        said(1, 2, weight=weight)


@pytest.mark.parametrize(("target", "tie"), [(0.5, True), (0.51, False), (1.0, False), (0.0, False)])
def test_only_a_half_is_a_tie(target: float, tie: bool) -> None:
    assert said(1, 2, target).is_tie == tie
