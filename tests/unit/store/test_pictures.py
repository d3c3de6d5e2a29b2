"""Pictures in the store: what is written comes back, nothing is doubled."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from d3po.errors import StorageError
from d3po.store import NewPicture, Store
from tests.unit.store.stores import fill


def picture(prompt: int, number: int = 0, *, path: str = "imported/cat.png", sha256: str = "a" * 64) -> NewPicture:
    return NewPicture(prompt=prompt, number=number, path=path, sha256=sha256)


def add_imported(store: Store, *pictures: NewPicture, series: str = "import/cats") -> list[int]:
    return store.pictures.add_pictures(series=series, origin="imported", model="elsewhere", policy="", seed=None, pictures=pictures)


def add_shard(store: Store, *pictures: NewPicture, number: int = 1) -> None:
    store.pictures.add_shard(
        round=0, number=number, path=f"{number}.safetensors", checksum="c", images=pictures, model="emoji", policy="base", seed=7
    )


def test_prompt_has_one_id_however_often_it_is_added(store: Store) -> None:
    first = store.pictures.add_prompts(["a cat", "a dog", "a cat"])
    assert first[0] == first[2] != first[1]
    assert store.pictures.add_prompts(["a dog", "a fox"])[0] == first[1]
    assert list(store.pictures.prompts().values()) == ["a cat", "a dog", "a fox"]


def test_prompts_longer_than_an_index_takes_are_kept_apart(store: Store) -> None:
    long = "a very long prompt " * 1000
    first, second = store.pictures.add_prompts([long + "of a cat", long + "of a dog"])
    assert first != second
    assert store.pictures.add_prompts([long + "of a dog"]) == [second]


def test_shard_and_its_images_come_back_in_row_order(store: Store) -> None:
    fill(store, prompts=2, images=2)
    (shard,) = store.pictures.shards(0)
    assert (shard.round, shard.number, shard.path, shard.checksum) == (0, 0, "rollouts/round-000/shard-000.safetensors", "c" * 64)
    images = store.pictures.images(0)
    assert [(image.prompt, image.number, image.row, image.shard_id) for image in images] == [
        ("prompt 0 of round 0", 0, 0, shard.id), ("prompt 0 of round 0", 1, 1, shard.id),
        ("prompt 1 of round 0", 0, 2, shard.id), ("prompt 1 of round 0", 1, 3, shard.id),
    ]  # fmt: skip


def test_shards_come_in_order_of_their_numbers(store: Store) -> None:
    prompts = dict(zip((2, 0, 1), store.pictures.add_prompts(["z", "x", "y"]), strict=True))
    for number, prompt in prompts.items():
        add_shard(store, picture(prompt, path=f"{number}.png"), number=number)
    assert [shard.number for shard in store.pictures.shards(0)] == [0, 1, 2]
    assert [image.prompt for image in store.pictures.images(0)] == ["x", "y", "z"]


def test_rounds_do_not_see_each_other(store: Store) -> None:
    fill(store, round=0)
    fill(store, round=1)
    first, second = ({image.id for image in store.pictures.images(round)} for round in (0, 1))
    assert first.isdisjoint(second)
    assert store.pictures.images(2) == store.pictures.shards(2) == []


def test_shard_recorded_twice_is_refused_and_leaves_no_images(store: Store) -> None:
    fill(store)
    before = store.pictures.images(0)
    (prompt,) = store.pictures.add_prompts(["a fox"])
    with pytest.raises(IntegrityError):
        add_shard(store, picture(prompt), number=0)
    assert store.pictures.images(0) == before


def test_image_recorded_twice_takes_its_shard_back(store: Store) -> None:
    fill(store)
    (known,) = store.pictures.add_prompts(["prompt 0 of round 0"])
    with pytest.raises(IntegrityError):
        add_shard(store, picture(known, 0))
    assert [shard.number for shard in store.pictures.shards(0)] == [0]


def test_a_picture_is_found_by_its_id_and_by_nothing_else(store: Store) -> None:
    (prompt,) = store.pictures.add_prompts(["a cat"])
    (image,) = add_imported(store, picture(prompt, path="imported/cat.png", sha256="b" * 64))
    assert store.pictures.picture(image) == ("imported/cat.png", "b" * 64)
    assert store.pictures.picture(image + 1) is None


def test_pictures_without_trajectories_form_a_series_in_order(store: Store) -> None:
    cat, dog = store.pictures.add_prompts(["a cat", "a dog"])
    second, first = add_imported(store, picture(dog, path="dog.png"), picture(cat, path="cat.png"))
    series = store.pictures.series("import/cats")
    assert [(one.id, one.prompt, one.origin, one.model, one.path) for one in series] == [
        (first, "a cat", "imported", "elsewhere", "cat.png"), (second, "a dog", "imported", "elsewhere", "dog.png"),
    ]  # fmt: skip
    assert store.pictures.series("import/dogs") == []


def test_the_same_pictures_again_are_the_same_ids(store: Store) -> None:
    (cat,) = store.pictures.add_prompts(["a cat"])
    pictures = picture(cat, 0, path="0.png"), picture(cat, 1, path="1.png")
    assert add_imported(store, *pictures) == add_imported(store, *reversed(pictures))[::-1]
    assert len(store.pictures.series("import/cats")) == 2


@pytest.mark.parametrize("changed", [{"sha256": "d" * 64}, {"path": "imported/other.png"}])
def test_another_picture_in_the_same_place_is_refused(store: Store, changed: dict[str, Any]) -> None:
    (cat,) = store.pictures.add_prompts(["a cat"])
    add_imported(store, picture(cat))
    with pytest.raises(StorageError, match="another picture has that number"):
        add_imported(store, picture(cat, **changed), picture(cat, 1, path="new.png"))
    assert len(store.pictures.series("import/cats")) == 1


def test_a_file_belongs_to_one_series(store: Store) -> None:
    (cat,) = store.pictures.add_prompts(["a cat"])
    add_imported(store, picture(cat))
    with pytest.raises(StorageError, match="another series has that file"):
        add_imported(store, picture(cat), series="import/again")


def test_opened_again_the_store_still_knows(store: Store, url: str) -> None:
    fill(store)
    again = Store(url)
    assert again.pictures.images(0) == store.pictures.images(0)
    again.close()


def test_one_writer_does_not_stop_readers(store: Store, url: str) -> None:
    fill(store)
    other = Store(url)
    with store.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE prompt SET text = 'changed'")
        assert "changed" not in other.pictures.prompts().values()
    assert set(other.pictures.prompts().values()) == {"changed"}
    other.close()


def test_the_store_of_a_folder_keeps_a_log_beside_it(tmp_path: Path) -> None:
    store = Store.in_folder(tmp_path)
    fill(store)
    assert (tmp_path / "d3po.db-wal").exists()
    store.close()
