"""Encodes imported pictures as latents, once, and caches them in `encoded/`."""

import hashlib
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from d3po.artifacts.embeddings import SHOWN
from d3po.artifacts.files import find_whole
from d3po.artifacts.run_pictures import read_picture
from d3po.artifacts.shards import Shard, writing_shard
from d3po.config import Size
from d3po.errors import CorruptFileError
from d3po.run.opened import OpenRun
from d3po.run.sample.buckets import nearest_bucket
from d3po.run.session import Session
from d3po.store import PictureRecord

PICTURES_PER_SHARD = 64
PICTURES_PER_CALL = 8
REMEDY = "restore it from a copy, or import it again with `d3po votes import`"


def encoded(session: Session, pictures: Sequence[PictureRecord]) -> dict[int, tuple[Shard, int]]:
    """Encode pictures, and return the shard and the index in it of each picture's latent, by picture id. All pictures of a prompt are in one shard.

    Raises:
        CorruptFileError: a picture's file is missing, is not what was imported, or cannot be read.
    """
    found: dict[int, tuple[Shard, int]] = {}
    default_size = session.policy.picture_size()
    with session.run.narrator.bar("encoding pictures", total=len(pictures)) as bar:
        for (width, height), together in _parts(session.run, pictures):
            size = (height, width) if width else default_size
            directory, name = session.run.folder.path / "encoded", _name(session.run, together, size)
            shard = Shard(path=find_whole(directory, name) or _encode(session, together, directory / f"{name}.safetensors", size))
            found |= {picture.id: (shard, row) for row, picture in enumerate(together)}
            bar.advance(len(together))
    return found


def _parts(run: OpenRun, pictures: Sequence[PictureRecord]) -> Iterator[tuple[Size, list[PictureRecord]]]:
    """Divide pictures into parts for shards. Each part has pictures of one size, and all pictures of a prompt are in one part."""
    prompts: dict[int, list[PictureRecord]] = defaultdict(list)
    for picture in pictures:
        prompts[picture.prompt_id].append(picture)
    waiting: dict[Size, list[PictureRecord]] = defaultdict(list)
    for group in prompts.values():
        size = _size_of(run, group)
        waiting[size] += group
        if len(waiting[size]) >= PICTURES_PER_SHARD:
            yield size, waiting.pop(size)
    yield from waiting.items()


def _size_of(run: OpenRun, pictures: Sequence[PictureRecord]) -> Size:
    """The bucket to which the pictures of one prompt are cropped. (0, 0) if there are no buckets."""
    if not run.config.sampling.buckets:
        return (0, 0)
    sizes: list[Size] = []
    for picture in pictures:
        with _opened(run, picture) as opened:
            sizes.append(opened.size)
    return nearest_bucket(run.config, sizes)


def _name(run: OpenRun, pictures: Sequence[PictureRecord], size: tuple[int, ...]) -> str:
    """A hash of everything on which the latents depend."""
    whole = [run.config.model, str(size), *(picture.sha256 for picture in pictures)]
    return hashlib.sha256("/".join(whole).encode()).hexdigest()[:32]


def _encode(session: Session, pictures: Sequence[PictureRecord], path: Path, size: tuple[int, ...]) -> Path:
    """Encode the pictures into a shard, named like `path` with the beginning of its SHA-256 appended, and return its path."""
    latents = session.encoding_sizer.split(
        lambda chunk: session.finite(
            session.policy.encode(torch.stack([_pixels(session.run, picture, size) for picture in pictures[chunk]])).cpu(),
            "the encoder of pictures",
        ),
        len(pictures),
        most=PICTURES_PER_CALL,
    )
    shape = tuple(latents.shape[1:])
    with writing_shard(path, num_steps=0, batch=len(pictures), latent_shape=shape, dtype=session.run.config.sampling.stored) as writer:
        writer.append(latents)
        digest = writer.finish()
    return path.replace(path.with_stem(f"{path.stem}-{digest[:SHOWN]}"))


def _pixels(run: OpenRun, picture: PictureRecord, size: tuple[int, ...]) -> Tensor:
    """Read a picture as a tensor of shape (3, height, width) in [0, 1], cropped at the centre and scaled to `size`, (height, width)."""
    opened = read_picture(run.folder.path / picture.path, remedy=REMEDY, checksum=picture.sha256)
    fitted = ImageOps.fit(opened.convert("RGB"), (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1).float() / 255


@contextmanager
def _opened(run: OpenRun, picture: PictureRecord) -> Generator[Image.Image, None, None]:
    """Open a picture's file. Only its header is read until its pixels are used."""
    path = run.folder.path / picture.path
    try:
        with Image.open(path) as opened:
            yield opened
    except OSError as error:
        raise CorruptFileError(f"picture {path} cannot be read ({error}); {REMEDY}") from error
