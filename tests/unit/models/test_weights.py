"""Frozen weights in half precision, with an adapter and gradients in float32."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.load import load_policy
from d3po.options import Weights
from tests.tiny import TINY, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}
SIZE = {"flux": {"width": 8, "height": 8}}


def loaded(family: str, folder: Path, weights: Weights) -> AbstractPolicy:
    policy = load_policy(str(folder), lora=LORA, seed=0, settings=PolicySettings(weights=weights, **SIZE.get(family, {})))
    policy.load_state({name: value + 0.05 for name, value in policy.state().items()})
    return policy


def predicted(policy: AbstractPolicy) -> Tensor:
    x = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(1))
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


def test_the_adapter_and_its_gradients_stay_in_float32(tmp_path: Path) -> None:
    policy = loaded("stable-diffusion", save_tiny("stable-diffusion", tmp_path), "float16")
    predicted(policy).square().mean().backward()
    for parameter in policy.trainable().values():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
    assert any(parameter.grad.abs().sum() > 0 for parameter in policy.trainable().values())


def test_weights_that_are_trained_must_be_float32() -> None:
    with pytest.raises(ConfigError, match=r"weights is 'bfloat16', but adapter\.method = 'full' trains them"):
        override(RunConfig(), {"weights": "bfloat16", "adapter.method": "full"}, where="--set")
