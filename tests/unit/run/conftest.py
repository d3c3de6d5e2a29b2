"""An opened run with pictures of known brightness, whose model is never loaded."""

import io
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from d3po.artifacts.files import sha256
from d3po.config import RunConfig, override
from d3po.run.folder import create_run
from d3po.run.opened import OpenRun, open_run
from d3po.run.progress import Narrator
from d3po.store.pictures import NewPicture

PROMPTS = ["a cat", "a dog"]
GREYS = [[10, 200, 100], [50, 60, 240]]
"""Of each prompt's pictures, whose ids in the store are 1, 2, 3 and 4, 5, 6."""
SETTINGS = {
    "sampling.prompts_per_round": "2",
    "sampling.images_per_prompt": "3",
    "feedback.reward": "brightness",
    "evaluation.prompts": "1",
}

OpenWith = Callable[..., OpenRun]


def grey(run: OpenRun, name: str, value: int) -> tuple[str, str]:
    """A picture of one grey in the run's folder; its path there, and its hash."""
    path = run.folder.path / "images" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), (value,) * 3).save(path)
    return run.folder.relative(path), sha256(path)


@pytest.fixture
def open_with(tmp_path: Path) -> Generator[OpenWith, None, None]:
    """Open a run with these settings whose first round is sampled."""

    opened: list[OpenRun] = []

    def make(settings: dict[str, str] | None = None, *, sampled: bool = True) -> OpenRun:
        config = override(override(RunConfig(), SETTINGS, where="test"), settings or {}, where="test")
        folder = create_run(tmp_path / "run", config, prompts=PROMPTS, held_out=["a bee"])
        run = open_run(folder, Narrator(Console(file=io.StringIO())))
        opened.append(run)
        if sampled:
            prompts = run.store.pictures.add_prompts(PROMPTS)
            for number, greys in enumerate(GREYS):
                files = [grey(run, f"{number}-{place}", value) for place, value in enumerate(greys)]
                images = [NewPicture(prompt=prompts[number], number=i, path=path, sha256=digest) for i, (path, digest) in enumerate(files)]
                run.store.pictures.add_shard(
                    round=0, number=number, path=f"shard-{number}", checksum="none", images=images, model="emoji", policy="base", seed=0
                )
        return run

    yield make
    for run in opened:
        run.close()
