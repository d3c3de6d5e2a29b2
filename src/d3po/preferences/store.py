"""The run's database: prompts, images, shards and comparisons (SQLAlchemy; SQLite in WAL, or any URL SQLAlchemy knows)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, create_engine, event, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from d3po.preferences.records import Comparison, ImageRecord, ShardRecord


class Base(DeclarativeBase):
    """Declarative base of the run's tables."""


class PromptRow(Base):
    """A text that pictures are made from."""

    __tablename__ = "prompt"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


class ShardRow(Base):
    """A finished file of trajectories; its presence here says that the sampler is done with it."""

    __tablename__ = "shard"
    __table_args__ = (UniqueConstraint("round", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int]
    number: Mapped[int]
    path: Mapped[str] = mapped_column(unique=True)
    checksum: Mapped[str]


class ImageRow(Base):
    """A sampled picture; unique by round, prompt and number, so a resumed sampler cannot double it."""

    __tablename__ = "image"
    __table_args__ = (UniqueConstraint("round", "prompt_id", "number"), UniqueConstraint("shard_id", "row"))
    id: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(index=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"))
    number: Mapped[int]
    shard_id: Mapped[int] = mapped_column(ForeignKey("shard.id"))
    row: Mapped[int]
    path: Mapped[str]


class ComparisonRow(Base):
    """A judgement. Its images stand in the order of their ids, so that (a, b) and (b, a) are the same pair."""

    __tablename__ = "comparison"
    __table_args__ = (
        UniqueConstraint("image_a", "image_b", "annotator"),
        CheckConstraint("image_a < image_b"),
        CheckConstraint("target >= 0 AND target <= 1"),
        CheckConstraint("weight >= 0"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    image_a: Mapped[int] = mapped_column(ForeignKey("image.id"))
    image_b: Mapped[int] = mapped_column(ForeignKey("image.id"))
    target: Mapped[float]
    weight: Mapped[float]
    annotator: Mapped[str]


class Store:
    """Reads and writes a run's records; each method is one transaction."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _set_sqlite_pragmas)
        Base.metadata.create_all(self._engine)

    @classmethod
    def in_folder(cls, folder: Path) -> "Store":
        """The store of a run folder: `d3po.db` in it."""
        return cls(f"sqlite:///{folder / 'd3po.db'}")

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def add_prompts(self, texts: Sequence[str]) -> list[int]:
        """The id of each text, added where it is new."""
        with Session(self._engine) as session, session.begin():
            known = {row.text: row.id for row in session.scalars(select(PromptRow))}
            for text in texts:
                if text not in known:
                    row = PromptRow(text=text)
                    session.add(row)
                    session.flush()
                    known[text] = row.id
            return [known[text] for text in texts]

    def add_shard(self, *, round: int, number: int, path: str, checksum: str, images: Sequence[tuple[int, int, str]]) -> None:
        """Record a finished shard with its images, given in row order as (prompt id, number, PNG path)."""
        with Session(self._engine) as session, session.begin():
            shard = ShardRow(round=round, number=number, path=path, checksum=checksum)
            session.add(shard)
            session.flush()
            session.add_all(
                ImageRow(round=round, prompt_id=prompt, number=image, shard_id=shard.id, row=row, path=png)
                for row, (prompt, image, png) in enumerate(images)
            )

    def shards(self, round: int) -> list[ShardRecord]:
        """The round's finished shards, in order."""
        query = select(ShardRow).where(ShardRow.round == round).order_by(ShardRow.number)
        with Session(self._engine) as session:
            return [
                ShardRecord(id=row.id, round=row.round, number=row.number, path=row.path, checksum=row.checksum)
                for row in session.scalars(query)
            ]

    def images(self, round: int) -> list[ImageRecord]:
        """The round's images, ordered by shard and row."""
        query = (
            select(ImageRow, PromptRow.text)
            .join(PromptRow, PromptRow.id == ImageRow.prompt_id)
            .join(ShardRow, ShardRow.id == ImageRow.shard_id)
            .where(ImageRow.round == round)
            .order_by(ShardRow.number, ImageRow.row)
        )
        with Session(self._engine) as session:
            return [
                ImageRecord(
                    id=row.id,
                    round=row.round,
                    prompt_id=row.prompt_id,
                    prompt=text,
                    number=row.number,
                    shard_id=row.shard_id,
                    row=row.row,
                    path=row.path,
                )
                for row, text in session.execute(query)
            ]

    def add_comparisons(self, comparisons: Iterable[Comparison]) -> None:
        """Record judgements, all or none of them."""
        rows = [_ordered(comparison) for comparison in comparisons]
        if rows:
            with Session(self._engine) as session, session.begin():
                session.execute(insert(ComparisonRow), rows)

    def comparisons(self, round: int) -> list[Comparison]:
        """The judgements of the round's images, oldest first."""
        query = (
            select(ComparisonRow)
            .join(ImageRow, ImageRow.id == ComparisonRow.image_a)
            .where(ImageRow.round == round)
            .order_by(ComparisonRow.id)
        )
        with Session(self._engine) as session:
            return [
                Comparison(image_a=row.image_a, image_b=row.image_b, target=row.target, weight=row.weight, annotator=row.annotator)
                for row in session.scalars(query)
            ]

    def count_comparisons(self) -> int:
        """How many judgements the run holds."""
        with Session(self._engine) as session:
            return session.scalar(select(func.count()).select_from(ComparisonRow)) or 0


def _ordered(comparison: Comparison) -> dict[str, Any]:
    swapped = comparison.image_a > comparison.image_b
    first, second = sorted((comparison.image_a, comparison.image_b))
    return {
        "image_a": first,
        "image_b": second,
        "target": 1 - comparison.target if swapped else comparison.target,
        "weight": comparison.weight,
        "annotator": comparison.annotator,
    }


def _set_sqlite_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
