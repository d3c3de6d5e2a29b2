"""An opened run with pictures of known brightness, whose model is never loaded; and a session with a model that costs nothing."""

import io
import shutil
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from d3po.artifacts.files import sha256
from d3po.config import RunConfig, override
from d3po.preferences.records import Answer, NewQuestion
from d3po.progress import Narrator
from d3po.run.folder import create_run
from d3po.run.opened import OpenRun, open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.store.pictures import NewPicture
from tests.unit.run.toy import GUIDANCE, STEPS, ToyPolicy

PROMPTS = ["a cat", "a dog"]
GREYS = [[10, 200, 100], [50, 60, 240]]
"""Of each prompt's pictures, whose ids in the store are 1, 2, 3 and 4, 5, 6."""
SETTINGS = {
    "sampling.prompts_per_round": "2",
    "sampling.images_per_prompt": "3",
    "feedback.reward": "brightness",
    "evaluation.prompts": "1",
}

TOY = {
    "model": "toy",
    "sampling.steps": str(STEPS),
    "sampling.guidance": str(GUIDANCE),
    "evaluation.images_per_prompt": "2",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}
"""Settings of runs on the toy model."""

OpenWith = Callable[..., OpenRun]
SessionWith = Callable[..., Session]


def grey(run: OpenRun, name: str, value: int) -> tuple[str, str]:
    """A picture of one grey in the run's folder; its path there, and its hash."""
    path = run.folder.path / "images" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), (value,) * 3).save(path)
    return run.folder.relative(path), sha256(path)


def say(run: OpenRun, *images: int, answer: Answer | None = None, who: str = "ada", round: int | None = 0) -> None:
    """Somebody's vote on these pictures of one prompt: that the first of two is better, if no other answer is given."""
    question = NewQuestion(kind="pair" if len(images) == 2 else "thumb", purpose="train", images=images, round=round)
    annotator = run.store.people.annotator(who, "human")
    run.store.votes.record_judgements(annotator.id, [(question, answer or Answer(outcome="win", winner=images[0]))])


def said(run: OpenRun) -> str:
    """Everything that the run has told its user."""
    file = run.narrator.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.fixture
def open_with(tmp_path: Path, sqlite_template: Path) -> Generator[OpenWith, None, None]:
    """Open a run with these settings whose first round is sampled."""

    opened: list[OpenRun] = []

    def make(settings: dict[str, str] | None = None, *, sampled: bool = True) -> OpenRun:
        config = override(override(RunConfig(), SETTINGS, where="test"), settings or {}, where="test")
        folder = create_run(tmp_path / "run", config, prompts=PROMPTS, held_out=["a bee"])
        shutil.copy(sqlite_template, folder.path / "d3po.db")  # to make its tables takes longer than most tests
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


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is the toy."""
    monkeypatch.setattr("d3po.run.session.load_policy", lambda *_, **__: ToyPolicy())


@pytest.fixture(scope="session")
def first_rounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders whose first round the untrained toy has sampled, by how: each is made once, and copied."""
    return {}


@pytest.fixture
def session_with(
    open_with: OpenWith, toy: None, first_rounds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> SessionWith:
    """Open a run on the toy model whose first round is sampled."""

    def made(config: RunConfig) -> Path:
        folder = create_run(tmp_path_factory.mktemp("first") / "run", config, prompts=PROMPTS, held_out=["a bee"])
        shutil.copy(sqlite_template, folder.path / "d3po.db")
        with closing(open_run(folder, Narrator(Console(quiet=True)))) as run:
            sample_round(Session(run), 0)
        return folder.path

    def make(settings: dict[str, str] | None = None, *, sampled: bool = True) -> Session:
        session = Session(open_with(TOY | (settings or {}), sampled=False))
        if sampled:
            config, path = session.run.config, session.run.folder.path
            how = f"{config.seed} {config.sampling.model_dump_json()}"
            first_rounds[how] = first_rounds.get(how) or made(config)
            for part in ("rollouts", "images"):
                shutil.copytree(first_rounds[how] / part, path / part)
            for part in ("d3po.db", "database.json"):
                shutil.copy(first_rounds[how] / part, path / part)
        return session

    return make
