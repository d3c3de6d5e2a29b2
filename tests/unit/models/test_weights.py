"""Frozen weights in half precision, with an adapter and gradients in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.load import load_policy
from d3po.options import Arithmetic, Weights
from tests.precision import assert_rounded_alike
from tests.tiny import TINY, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}
SIZE: dict[str, dict[str, Any]] = {"flux": {"width": 8, "height": 8}}


def loaded(family: str, folder: Path, weights: Weights, arithmetic: Arithmetic = "weights") -> AbstractPolicy:
    settings = PolicySettings(weights=weights, arithmetic=arithmetic, **SIZE.get(family, {}))
    policy = load_policy(str(folder), lora=LORA, seed=0, settings=settings)
    policy.load_state({name: value + 0.05 for name, value in policy.state().items()})
    return policy


def predicted(policy: AbstractPolicy) -> Tensor:
    precision = torch.promote_types(next(iter(policy.network.parameters())).dtype, torch.float32)
    x = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(1)).to(precision)
    return policy.predict(x, torch.tensor([801, 1]), policy.encode_prompts(["a cat", "a dog"]), 3.0)


@pytest.mark.parametrize("family", [family for family in TINY if family != "inpainting"])
def test_half_precision_changes_a_prediction_only_by_rounding(family: str, tmp_path: Path) -> None:
    folder = save_tiny(family, tmp_path)
    exact, rounded = loaded(family, folder, "float32"), loaded(family, folder, "bfloat16")
    frozen = {p.dtype for p in rounded.network.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    with torch.no_grad():
        expected, output = predicted(exact), predicted(rounded)
    assert output.dtype == torch.float32
    assert 0 < (output - expected).norm() < 0.05 * expected.norm()
    assert torch.isfinite(rounded.decode(torch.zeros(1, *rounded.latent_shape))).all()


def gradients(policy: AbstractPolicy) -> list[Tensor]:
    return list(torch.autograd.grad(predicted(policy).square().mean(), list(policy.trainable().values())))


@pytest.mark.parametrize("family", ["stable-diffusion", "sdxl", "flux"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_weights_kept_in_half_precision_are_computed_with_in_float32(family: str, checkpointed: bool, tmp_path: Path) -> None:
    folder = save_tiny(family, tmp_path)
    kept, exact, truth = loaded(family, folder, "bfloat16", "float32"), loaded(family, folder, "float32"), loaded(family, folder, "float64")
    assert {p.dtype for p in kept.network.parameters() if not p.requires_grad} == {torch.bfloat16}
    for policy in (kept, exact, truth):
        for weight in policy.network.parameters():
            weight.data = weight.data if weight.requires_grad else weight.data.bfloat16().to(weight.dtype)
        policy.load_state(exact.state())
        if checkpointed:
            policy.enable_gradient_checkpointing()
            policy.network.train()
    # Prompts are encoded in bfloat16 by one of them; what is compared here is the network.
    kept.encode_prompts = truth.encode_prompts = exact.encode_prompts
    outputs = [[predicted(policy).detach(), *gradients(policy)] for policy in (kept, exact, truth)]
    for mine, theirs, true in zip(*outputs, strict=True):
        assert_rounded_alike(mine, theirs, true)


def test_widened_weights_are_exported_as_they_are_stored(tmp_path: Path) -> None:
    folder = save_tiny("sdxl", tmp_path / "model")
    widened, stored = loaded("sdxl", folder, "bfloat16", "float32"), loaded("sdxl", folder, "bfloat16")
    for policy, place in ((widened, "widened"), (stored, "stored")):
        policy.export(tmp_path / place)
    for file in ("lora-kohya.safetensors", "merged/unet/diffusion_pytorch_model.safetensors"):
        mine, theirs = (load_file(tmp_path / place / file) for place in ("widened", "stored"))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_arithmetic_in_float32_goes_with_whole_networks_and_no_autocast() -> None:
    for other in ({"hardware.divide": "fsdp"}, {"training.mixed_precision": "bf16"}):
        with pytest.raises(
            ConfigError, match=r"arithmetic is 'float32', which cannot be combined with hardware\.divide or training\.mixed_precision"
        ):
            override(RunConfig(), {"arithmetic": "float32", **other}, where="--set")


def test_the_adapter_and_its_gradients_stay_in_float32(tmp_path: Path) -> None:
    policy = loaded("stable-diffusion", save_tiny("stable-diffusion", tmp_path), "float16")
    predicted(policy).square().mean().backward()
    for parameter in policy.trainable().values():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy.trainable().values())


def test_in_float64_everything_is(tmp_path: Path) -> None:
    """Frozen weights, adapter, gradients, text and pictures."""
    policy = loaded("stable-diffusion", save_tiny("stable-diffusion", tmp_path), "float64")
    assert {weight.dtype for weight in policy.network.parameters()} == {torch.float64}
    assert {gradient.dtype for gradient in gradients(policy)} == {torch.float64}
    assert policy.decode(torch.zeros(1, *policy.latent_shape)).dtype == torch.float64


@pytest.mark.parametrize(
    "other",
    [{"arithmetic": "float32"}, {"training.mixed_precision": "bf16"}, {"training.optimizer": "adamw8bit"}, {"hardware.divide": "zero3"}],
)
def test_float64_is_refused_beside_what_computes_in_less(other: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"weights is 'float64', which .*{next(iter(other))}"):
        override(RunConfig(), {"weights": "float64", **other}, where="--set")


def test_weights_that_are_trained_must_be_float32() -> None:
    with pytest.raises(ConfigError, match=r"weights is 'bfloat16', but adapter\.method = 'full' trains them"):
        override(RunConfig(), {"weights": "bfloat16", "adapter.method": "full"}, where="--set")
