"""Tiny real pipelines and runs on them."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from d3po.cli import main
from d3po.config import RunConfig, override
from d3po.run.folder import RunFolder, create_run
from tests.tiny import parts, save_tiny

PROMPTS = ["a cat", "a dog", "a bird", "a cow", "a pig", "a fox"]
HELD_OUT = ["a bee", "an ant"]
SETTINGS = {
    "rounds": "2",
    "seed": "3",
    "sampling.steps": "5",
    "sampling.prompts_per_round": "4",
    "sampling.prompts_per_shard": "2",
    "sampling.images_per_prompt": "3",
    "feedback.reward": "brightness",
    "adapter.targets": "attention+conv",
    "objective.d3po.beta": "5",
    "objective.d3po.clip": "none",
    "training.learning_rate": "1e-2",
    "training.epochs": "2",
    "training.checkpoint_every": "2",
    "evaluation.prompts": "2",
    "evaluation.images_per_prompt": "2",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny pipeline whose U-Net has one level: most of a tiny run's time goes into calling modules."""
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("tiny"), unet=parts.flat_unet())


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """accelerate keeps one precision per process; each test may choose its own."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have no figures, whose drawing takes as long as the rest of a tiny run, but in tests marked `drawn`."""
    if not request.node.get_closest_marker("drawn"):
        monkeypatch.setattr("d3po.evaluation.report.svg", lambda figure: "")


@pytest.fixture
def make_run(tiny_model: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    """Make a run folder on the tiny model; settings are dotted keys with TOML values."""

    def make(name: str = "run", settings: dict[str, str] | None = None) -> RunFolder:
        config = override(override(RunConfig(model=str(tiny_model)), SETTINGS, where="test"), settings or {}, where="test")
        return create_run(tmp_path / name, config, prompts=PROMPTS, held_out=HELD_OUT)

    return make


def d3po(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as `main` does, in this process: starting Python and torch anew takes longer than most commands."""
    stdout, stderr = io.StringIO(), io.StringIO()
    words = list(map(str, arguments))
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["d3po", *words])
        with pytest.raises(SystemExit) as end:
            main()
    code = end.value.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


def d3po_process(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, check=False, env=environment())


def command(*arguments: str | Path) -> list[str]:
    """The command line as a process is started with it."""
    return [sys.executable, "-m", "d3po", *map(str, arguments)]


def environment() -> dict[str, str]:
    """An environment in which no hub is asked."""
    return os.environ | {"HF_HUB_OFFLINE": "1"}
