"""Every setting at values that make no sense: refused where run.toml is read, or before any work is done, by one line; never later."""

import io
import math
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor, nn

from d3po.config import RunConfig, dump_config, parse_config
from d3po.errors import ConfigError, UserError
from d3po.progress import Narrator
from d3po.run.folder import create_run
from d3po.run.loop import prepare
from d3po.run.opened import open_run
from d3po.run.session import Session
from tests.unit.test_config import SETTINGS

ODD: list[Any] = [
    0,
    -1,
    5000,
    10**30,
    0.0,
    -0.5,
    1e300,
    math.nan,
    math.inf,
    "",
    "a\0b",
    "\ud800",
    [],
    [0, 0],
    [10**30, 10**30],
    True,
    False,
]


class Small(nn.Module):
    """A model that is made in no time."""

    sample_shape = (3, 4, 4)
    prediction = "epsilon"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.alphas_cumprod = torch.linspace(0.999, 0.01, 100)

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return self.layer(x_t)

    def decode(self, samples: Tensor) -> Tensor:
        return samples / 2 + 0.5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("small_model")
    module.make = Small
    monkeypatch.setitem(sys.modules, "small_model", module)
    AcceleratorState._reset_state(reset_partial_state=True)


def with_setting(name: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": "custom:small_model:make",
        "sampling": {"steps": 3, "prompts_per_round": 2},
        "feedback": {"reward": "brightness"},
        "adapter": {"targets": "linear"},
        "evaluation": {"prompts": 1},
    }
    *tables, key = name.split(".")
    table = values
    for part in tables:
        table = table.setdefault(part, {})
    table[key] = value
    if len(tables) == 2:
        values["objective"]["name"] = tables[1]
        values["sampling"]["branch"] = tables[1] == "d3po_branch"
    return values


def refusal(path: Path, name: str, value: Any) -> str | None:
    """Why a run with this setting gets no further than its first picture; None if it does."""
    try:
        config = parse_config(with_setting(name, value), where="run.toml")
        folder = create_run(path, config, prompts=["a", "b", "c"], held_out=["d"])
        assert folder.config() == config
        with closing(Session(open_run(folder, Narrator(Console(file=io.StringIO())), config=config))) as session:
            prepare(session)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("name", [name for name in SETTINGS if not name.startswith("objective.flow_dpo.")])  # the model is no flow model
def test_a_value_that_makes_no_sense_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    for place, value in enumerate(ODD):
        said = refusal(tmp_path / str(place), name, value)
        if said is not None:
            assert "\n" not in said
            assert name.rpartition(".")[2] in said or str(value) in said, said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**64),
        ("training.adam_betas", [0.9, 1.0]),
        ("training.adam_betas", [-0.1, 0.9]),
        ("training.timestep_range", [-1, 5]),
        ("training.epochs", 10**9),
        ("training.learning_rate", 1e10),
        ("adapter.rank", 10**9),
        ("sampling.images_per_prompt", 10**6),
        ("sampling.width", 10**6),
        ("sampling.negative_prompt", "a\x1bb"),
        ("vlm_judge.criterion", ""),
        ("feedback.reward", ""),
        ("model", ""),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run_is_refused_when_it_is_read(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"run.toml: {name}"):
        parse_config(with_setting(name, value), where="run.toml")


def test_the_largest_seed_is_kept_in_the_file() -> None:
    assert f"seed = {2**64 - 1} " in dump_config(RunConfig(seed=2**64 - 1))
