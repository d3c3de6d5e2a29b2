"""Any network of one's own: what it must have, and that the examples train."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from d3po.config import RunConfig, override
from d3po.errors import ConfigError, ModelError, PromptError
from d3po.models.base import Embeddings, PolicySettings, SamplerSettings
from d3po.models.custom import CustomPolicy, load_custom
from d3po.recipes import load_recipe
from d3po.run.folder import create_run
from d3po.run.loop import run_rounds
from d3po.run.opened import open_run
from d3po.run.session import Session
from d3po.run.starting import numbered_starts, settings_for_objective, start
from tests.precision import assert_same

EXAMPLES = Path(__file__).parents[3] / "examples"
LORA = {"rank": 2, "alpha": 2.0, "targets": "linear"}
SMALL = {
    "rounds": "1",
    "sampling.prompts_per_round": "4",
    "evaluation.prompts": "2",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}


class Line(nn.Module):
    """Samples of one number; the velocity is a linear function."""

    sample_shape = (1,)
    prediction = "flow"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        shift = 0.0 if condition is None else condition
        return self.layer(torch.cat([x_t, t[:, None] / 1000], dim=1)) + shift


class Told(Line):
    """The same, and it listens to the length of its prompt."""

    def encode(self, prompts: list[str]) -> Tensor:
        return torch.tensor([[float(len(prompt))] for prompt in prompts])


def written(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.py").write_text("import torch\nfrom torch import nn\n" + text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def make(): return 3", "lacks predict, sample_shape, prediction"),
        ("def make(): raise RuntimeError('no weights')", "cannot be made: RuntimeError: no weights"),
        ("other = 1", "cannot be made: AttributeError"),
        ("class A(nn.Module):\n predict, sample_shape, prediction = print, (2,), 'noise'\nmake = A", "prediction 'noise'; known are"),
        ("class A(nn.Module):\n predict, sample_shape, prediction = print, (2,), 'epsilon'\nmake = A", "lacks alphas_cumprod"),
        ("class A:\n predict, sample_shape, prediction = print, (2,), 'flow'\nmake = A", r"is a A, no torch\.nn\.Module"),
    ],
)
def test_a_module_without_what_it_needs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    written(tmp_path, text, monkeypatch)
    with pytest.raises(ModelError, match=words):
        load_custom("mine:make")


def test_a_flow_of_ones_own_takes_the_sde_step_and_no_other() -> None:
    policy = CustomPolicy(Line(), lora=LORA, seed=0)
    assert policy.sampler(SamplerSettings(steps=4)).grid.timesteps.tolist() == [1000, 750, 500, 250]
    with pytest.raises(ConfigError, match="is 'ddim', but this is a flow model"):
        policy.sampler(SamplerSettings(steps=4, kind="ddim"))


def test_guidance_is_classifier_free_where_there_are_prompts() -> None:
    policy = CustomPolicy(Told().double(), lora=LORA, seed=0, settings=PolicySettings(negative_prompt="abcde"))
    x, t, condition = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([500.0, 500.0]), policy.encode_prompts(["a", "ab"])
    with torch.no_grad():
        plain, guided = policy.predict(x, t, condition, 1.0), policy.predict(x, t, condition, torch.tensor([1.0, 3.0]))
    assert_same(guided - plain, torch.tensor([[0.0], [2 * (2.0 - 5.0)]], dtype=torch.float64))


def test_samples_that_cannot_be_looked_at_are_refused() -> None:
    with pytest.raises(ModelError, match=r"samples of shape \[1\] are no pictures; give Line a method decode"):
        CustomPolicy(Line(), lora=LORA, seed=0).decode(torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("example", "reward", "objective"), [("custom_points", "to_the_right", "d3po"), ("custom_actions", "passes_above", "diffusion_dpo")]
)
def test_the_examples_train_and_their_exports_are_the_trained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str, reward: str, objective: str
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    """Both have 100 timesteps, where other models have 1000."""
    named = {} if objective == "d3po" else settings_for_objective(objective)
    begun = start(load_recipe("default"), named | {"model": f"custom:{example}:make", "feedback.reward": f"{example}:{reward}"})
    config = override(begun.config, SMALL, where="test")
    prompts, held_out = numbered_starts(config)
    folder = create_run(tmp_path / "run", config, prompts=prompts, held_out=held_out)
    run_rounds(Session(open_run(folder, config=config)))
    session = Session(open_run(folder, config=config))
    session.load_round_weights(1)
    session.policy.network.double()
    x, t = torch.randn(3, *session.policy.latent_shape, dtype=torch.float64), torch.tensor([90, 50, 10])
    condition = session.policy.encode_prompts(["a", "b", "c"])
    with torch.no_grad():
        trained = session.policy.predict(x, t, condition, 1.0)
        with session.policy.without_adapter():
            base = session.policy.predict(x, t, condition, 1.0)
        lora, merged = session.policy.export(tmp_path / "out")
        assert_same(session.policy.predict(x, t, condition, 1.0), trained)
    assert (trained - base).abs().max() > 1e-4
    assert (lora / "adapter_config.json").exists()
    assert merged.exists()


def test_a_custom_model_needs_no_prompts() -> None:
    begun = start(load_recipe("default"), {"model": "custom:some:thing"})
    assert (begun.needs_prompts, begun.config.adapter.targets) == (False, "linear")
    assert isinstance(begun.config, RunConfig)


@pytest.mark.parametrize(
    ("text", "words"),
    [("import sys\nsys.exit(0)\n", "cannot be made: SystemExit: 0"), ("def make():\n    raise SystemExit\n", "cannot be made: SystemExit")],
)  # fmt: skip
def test_a_module_that_ends_the_process_is_an_error(tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, text, monkeypatch)
    with pytest.raises(ModelError, match=words):
        load_custom("mine:make")


@pytest.mark.parametrize("method", ["predict", "encode", "decode", "encode_pictures"])
@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (SystemExit(0), r"called sys\.exit\(0\)"),
        (ZeroDivisionError("by nothing"), "failed: ZeroDivisionError: by nothing"),
        (RuntimeError("shapes differ"), "failed: RuntimeError: shapes differ"),
    ],
)
def test_a_method_that_ends_the_process_or_fails_is_named(method: str, raised: BaseException, words: str) -> None:
    with pytest.raises(ModelError, match=f"the custom model's {method} {words}"):
        call_failing(method, raised)


@pytest.mark.parametrize(
    "raised", [OSError(28, "No space left on device"), RuntimeError("CUDA out of memory"), PromptError("no such prompt")]
)
def test_what_the_machine_refuses_is_not_the_models_fault(raised: Exception) -> None:
    with pytest.raises(type(raised), match=re.escape(str(raised))):
        call_failing("predict", raised)


def call_failing(method: str, raised: BaseException) -> None:
    def fail(*_: object) -> None:
        raise raised

    model = Told()
    setattr(model, method, fail)
    policy = CustomPolicy(model, lora=LORA, seed=0)
    calls = {
        "predict": lambda: policy.predict(torch.zeros(1, 1), torch.tensor([500]), Embeddings(given={}, negative={}), 1.0),
        "encode": lambda: policy.encode_prompts(["a cat"]),
        "decode": lambda: policy.decode(torch.zeros(1, 1)),
        "encode_pictures": lambda: policy.encode(torch.zeros(1, 3, 8, 8)),
    }
    calls[method]()
