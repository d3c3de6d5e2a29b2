"""A store with pictures and questions to serve, without any model."""

import hashlib
import io
from pathlib import Path

from PIL import Image

from d3po.preferences.records import Answer, Kind, NewQuestion
from d3po.store import NewPicture, Store

PROMPTS = ["a cat", "<script>alert('prompt')</script>"]
IMAGES_PER_PROMPT = 4


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def add_pictures(store: Store, folder: Path, *, series: str = "import/test", images: int = IMAGES_PER_PROMPT) -> dict[int, list[int]]:
    """Pictures of the prompts in the folder and the store; their ids by prompt id."""
    prompts = store.pictures.add_prompts(PROMPTS)
    pictures: list[NewPicture] = []
    for p, prompt in enumerate(prompts):
        for i in range(images):
            path = f"images/{series}/{p}-{i}.png"
            content = png((10 * i, 100 * p, len(series)))
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            pictures.append(NewPicture(prompt=prompt, number=i, path=path, sha256=hashlib.sha256(content).hexdigest()))
    ids = store.pictures.add_pictures(series=series, origin="imported", model="none", policy="", seed=None, pictures=pictures)
    return {prompt: ids[p * images : (p + 1) * images] for p, prompt in enumerate(prompts)}


def ask(store: Store, groups: dict[int, list[int]], kind: Kind = "pair", *, overlap: int = 1, gold: bool = False) -> list[int]:
    """Questions about every group: all its pairs, all of it, or each picture, as the kind has it."""
    sets: list[tuple[int, ...]] = []
    for images in groups.values():
        if kind == "pair":
            sets += [(a, b) for i, a in enumerate(images) for b in images[i + 1 :]]
        elif kind in ("thumb", "score"):
            sets += [(image,) for image in images]
        else:
            sets.append(tuple(images))
    answers = {images: Answer(outcome="win", winner=images[0]) if gold else None for images in sets}
    return store.questions.ask(
        [
            NewQuestion(
                kind=kind, purpose="gold" if gold else "train", images=images, round=None if gold else 0, overlap=overlap,
                gold_answer=answers[images],
            )
            for images in sets
        ]
    )  # fmt: skip
