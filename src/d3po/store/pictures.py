"""Prompts, finished shards with their images, and pictures without trajectories."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, insert, select
from sqlalchemy.orm import InstrumentedAttribute

from d3po.errors import StorageError
from d3po.preferences.records import ImageRecord, Origin, ShardRecord
from d3po.store.database import Database, chunks, insert_new
from d3po.store.tables import ImageRow, PromptRow, ShardRow


@dataclass(frozen=True, kw_only=True)
class NewPicture:
    """A picture about to be recorded."""

    prompt: int
    """Prompt id."""
    number: int
    """Its number among the prompt's pictures of the series, from 0."""
    path: str
    """The file, relative to the run folder."""
    sha256: str
    """Hash of the file's bytes."""


@dataclass(frozen=True, kw_only=True)
class PictureRecord:
    """A picture of any origin, as it is stored."""

    id: int
    series: str
    prompt_id: int
    prompt: str
    number: int
    path: str
    sha256: str
    origin: Origin
    model: str
    policy: str


class PictureFile(NamedTuple):
    """A picture's file, relative to the run folder, and the SHA-256 of its bytes."""

    path: str
    sha256: str


class PictureStore:
    """Reads and writes prompts, shards and images; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_prompts(self, texts: Sequence[str]) -> list[int]:
        """Add the texts that are new, and return the prompt id of each text."""

        def add(connection: Connection) -> list[int]:
            hashes = [_hash(text) for text in texts]
            known = _prompt_ids(connection, hashes)
            new = {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}
            insert_new(connection, PromptRow, [{"text": text, "text_hash": key} for key, text in new.items()])
            known |= _prompt_ids(connection, list(new))
            return [known[key] for key in hashes]

        return self._database.write(add)

    def prompts(self) -> dict[int, str]:
        """Every prompt's text by its id."""
        with self._database.reading() as connection:
            return {row.id: row.text for row in connection.execute(select(PromptRow.id, PromptRow.text).order_by(PromptRow.id))}

    def add_shard(
        self, *, round: int, number: int, path: str, checksum: str, images: Sequence[NewPicture], model: str, policy: str, seed: int
    ) -> None:
        """Record a finished shard with its images, in the order of the shard's batch.

        Raises:
            IntegrityError: the shard or one of its images is already recorded; nothing is added.
        """
        whose = {"origin": "sampled", "series": f"round-{round:03}", "round": round, "model": model, "policy": policy, "seed": seed}

        def add(connection: Connection) -> None:
            made = insert(ShardRow).values(round=round, number=number, path=path, checksum=checksum).returning(ShardRow.id)
            shard = connection.execute(made).scalar_one()
            rows = [_columns(image) | whose | {"shard_id": shard, "row": row} for row, image in enumerate(images)]
            connection.execute(insert(ImageRow), rows)

        self._database.write(add)

    def shards(self, round: int) -> list[ShardRecord]:
        """The round's finished shards, ordered by number."""
        query = select(ShardRow.id, ShardRow.round, ShardRow.number, ShardRow.path, ShardRow.checksum).where(ShardRow.round == round)
        with self._database.reading() as connection:
            return [ShardRecord(**row) for row in connection.execute(query.order_by(ShardRow.number)).mappings()]

    def images(self, round: int) -> list[ImageRecord]:
        """The round's images, ordered by shard and by index in the shard's batch."""
        query = (
            select(
                ImageRow.id,
                ImageRow.round,
                ImageRow.prompt_id,
                PromptRow.text.label("prompt"),
                ImageRow.number,
                ImageRow.shard_id,
                ImageRow.row,
                ImageRow.path,
                ImageRow.sha256,
            )
            .join(PromptRow, PromptRow.id == ImageRow.prompt_id)
            .join(ShardRow, ShardRow.id == ImageRow.shard_id)
            .where(ImageRow.round == round)
            .order_by(ShardRow.number, ImageRow.row)
        )
        with self._database.reading() as connection:
            return [ImageRecord(**row) for row in connection.execute(query).mappings()]

    def add_pictures(
        self,
        *,
        series: str,
        origin: Literal["evaluation", "imported"],
        model: str,
        policy: str,
        seed: int | None,
        pictures: Sequence[NewPicture],
    ) -> list[int]:
        """Record the pictures that are new, and return the id of each. The same pictures again get the same ids.

        Raises:
            StorageError: the series has another picture with that prompt and number, or the file belongs to another picture; nothing is added.
        """
        whose = {"origin": origin, "series": series, "model": model, "policy": policy, "seed": seed}

        def add(connection: Connection) -> list[int]:
            insert_new(connection, ImageRow, [_columns(picture) | whose for picture in pictures])
            stored = _places(connection, series, sorted({picture.prompt for picture in pictures}))
            for picture in pictures:
                if stored.get((picture.prompt, picture.number), (0, "", ""))[1:] != (picture.path, picture.sha256):
                    raise StorageError(
                        f"picture {picture.number} of prompt {picture.prompt} in {series} is not {picture.path}: another picture has that "
                        "number, or another series has that file; choose another name for the series"
                    )
            return [stored[picture.prompt, picture.number][0] for picture in pictures]

        return self._database.write(add)

    def picture(self, image: int) -> PictureFile | None:
        """The file of a picture; None if there is no such picture."""
        with self._database.reading() as connection:
            row = connection.execute(select(ImageRow.path, ImageRow.sha256).where(ImageRow.id == image)).one_or_none()
        return None if row is None else PictureFile(path=row.path, sha256=row.sha256)

    def series(self, name: str) -> list[PictureRecord]:
        """The pictures of a series, ordered by prompt and number."""
        return self._records(ImageRow.series == name, ImageRow.prompt_id, ImageRow.number)

    def imported(self) -> list[PictureRecord]:
        """All imported pictures, in order of their ids."""
        return self._records(ImageRow.origin == "imported", ImageRow.id)

    def _records(self, which: ColumnElement[bool], *order: InstrumentedAttribute[int]) -> list[PictureRecord]:
        query = (
            select(
                ImageRow.id,
                ImageRow.series,
                ImageRow.prompt_id,
                PromptRow.text.label("prompt"),
                ImageRow.number,
                ImageRow.path,
                ImageRow.sha256,
                ImageRow.origin,
                ImageRow.model,
                ImageRow.policy,
            )
            .join(PromptRow, PromptRow.id == ImageRow.prompt_id)
            .where(which)
            .order_by(*order)
        )
        with self._database.reading() as connection:
            return [PictureRecord(**row) for row in connection.execute(query).mappings()]


def _columns(picture: NewPicture) -> dict[str, object]:
    columns = asdict(picture)
    return {"prompt_id": columns.pop("prompt"), **columns}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _prompt_ids(connection: Connection, hashes: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in chunks(hashes):
        rows = connection.execute(select(PromptRow.text_hash, PromptRow.id).where(PromptRow.text_hash.in_(part)))
        found |= {row.text_hash: row.id for row in rows}
    return found


def _places(connection: Connection, series: str, prompts: Sequence[int]) -> dict[tuple[int, int], tuple[int, str, str]]:
    """The id, path and hash of each picture of the series, by prompt and number."""
    found: dict[tuple[int, int], tuple[int, str, str]] = {}
    for part in chunks(prompts):
        query = select(ImageRow).where(ImageRow.series == series, ImageRow.prompt_id.in_(part))
        found |= {(row.prompt_id, row.number): (row.id, row.path, row.sha256) for row in connection.execute(query)}
    return found
