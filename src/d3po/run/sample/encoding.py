"""Pictures that the model did not make, as latents: encoded once and kept in `encoded/`."""

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
    """Shard and row of each picture's latent, by picture id; all pictures of a prompt are in one shard.

    Raises:
        CorruptFileError: a picture's file is gone, not what was imported, or cannot be read.
    """
    found: dict[int, tuple[Shard, int]] = {}
    own = session.policy.picture_size()
    with session.run.narrator.bar("encoding pictures", total=len(pictures)) as bar:
        for (width, height), together in _parts(session.run, pictures):
            size = (height, width) if width else own
            directory, name = session.run.folder.path / "encoded", _name(session.run, together, size)
            shard = Shard(path=find_whole(directory, name) or _encode(session, together, directory / f"{name}.safetensors", size))
            found |= {picture.id: (shard, row) for row, picture in enumerate(together)}
            bar.advance(len(together))
    return found


def _parts(run: OpenRun, pictures: Sequence[PictureRecord]) -> Iterator[tuple[Size, list[PictureRecord]]]:
    """Parts of some pictures each, of one size, no prompt divided."""
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
    """The bucket that pictures of one prompt are cut to; (0, 0) where there are none."""
    if not run.config.sampling.buckets:
        return (0, 0)
    sizes: list[Size] = []
    for picture in pictures:
        with _opened(run, picture) as opened:
            sizes.append(opened.size)
    return nearest_bucket(run.config, sizes)


def _name(run: OpenRun, pictures: Sequence[PictureRecord], size: tuple[int, ...]) -> str:
    """A hash of everything the latents depend on."""
    whole = [run.config.model, str(size), *(picture.sha256 for picture in pictures)]
    return hashlib.sha256("/".join(whole).encode()).hexdigest()[:32]


def _encode(session: Session, pictures: Sequence[PictureRecord], path: Path, size: tuple[int, ...]) -> Path:
    """Encode the pictures into a shard like `path`, with the beginning of its SHA-256 behind its name."""
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
    """(3, height, width) in [0, 1], cut to the middle and scaled to the model's size."""
    opened = read_picture(run.folder.path / picture.path, remedy=REMEDY, checksum=picture.sha256)
    fitted = ImageOps.fit(opened.convert("RGB"), (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1).float() / 255


@contextmanager
def _opened(run: OpenRun, picture: PictureRecord) -> Generator[Image.Image, None, None]:
    """The picture's file, of which only the header is read until its pixels are asked for."""
    path = run.folder.path / picture.path
    try:
        with Image.open(path) as opened:
            yield opened
    except OSError as error:
        raise CorruptFileError(f"picture {path} cannot be read ({error}); {REMEDY}") from error
