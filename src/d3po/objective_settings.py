"""The settings of each objective, with their defaults. Each objective has a table in run.toml, such as `[objective.dpok]`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from d3po.options import Clip, ErrorWeighting, Targets
from d3po.section import Section

ObjectiveName = Literal[
    "d3po",
    "d3po_branch",
    "ipo_step",
    "ddpo",
    "dpok",
    "reward_weighted",
    "sft",
    "diffusion_dpo",
    "flow_dpo",
    "ipo",
    "dgpo",
    "diffusion_nft",
    "kto",
    "mapo",
]
"""The objectives; `d3po objectives` says what each needs."""

Positive = Annotated[float, Field(gt=0)]
"""A number that must be above 0, because 0 would leave nothing to learn from."""
AtLeastZero = Annotated[float, Field(ge=0)]
"""A number that may be 0, which switches off a part of the loss."""
Safeguard = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="mu of Diffusion-SDPO: the loser's gradient is scaled down so that a step lowers the winner's error too, the more the larger; 0 is off",
    ),
]
ClipRange = Annotated[float, Field(gt=0, lt=1, description="eps: ratios are clipped to [1-eps, 1+eps]")]


class D3POSettings(Section):
    """D3PO on every denoising step."""

    beta: Positive = Field(default=0.1, description="steepness in the log-ratio margin; larger keeps the policy closer to the reference")
    clip: Clip = Field(default="two_sided", description="none, two_sided (published) or one_sided")
    clip_range: ClipRange = 0.1
    targets: Targets = Field(default="signed", description="signed (published) or cross_entropy")


class D3POBranchSettings(D3POSettings):
    """D3PO on the one step at which the pictures of a prompt diverge."""

    beta: Positive = Field(default=10.0, description="steepness in the log-ratio margin; larger keeps the policy closer to the reference")


class IPOStepSettings(Section):
    """IPO on every denoising step."""

    beta: Positive = Field(default=10.0, description="the target margin is 1 / (2 beta)")


class DDPOSettings(Section):
    """DDPO, a policy gradient."""

    clip_range: ClipRange = 1e-4


class DPOKSettings(Section):
    """DPOK, a policy gradient with a KL penalty to the pretrained model."""

    alpha: Positive = Field(default=1.0, description="weight of the reward")
    beta: AtLeastZero = Field(default=1.0, description="weight of the KL to the pretrained model; 0 leaves it out")
    clip_range: ClipRange = 1e-4


class RewardWeightedSettings(Section):
    """Reward-weighted regression."""

    temperature: Positive = Field(
        default=0.5, description="temperature in standard deviations of the scores; near 0, only the best picture counts"
    )


class SFTSettings(Section):
    """Supervised fine-tuning has no settings."""


class DiffusionDPOSettings(Section):
    """Diffusion-DPO, for discrete-time models."""

    beta: Positive = Field(default=5000.0, description="steepness in the margin; larger keeps the policy closer to the reference")
    winner_safeguard: Safeguard = 0.0


class FlowDPOSettings(Section):
    """Diffusion-DPO on the velocity of flow models."""

    beta: Positive = Field(default=500.0, description="steepness in the margin; larger keeps the policy closer to the reference")
    winner_safeguard: Safeguard = 0.0


class IPOSettings(Section):
    """IPO on pictures alone."""

    beta: Positive = Field(default=1000.0, description="the target margin is 1 / (2 beta)")


class DGPOSettings(Section):
    """DGPO, on all pictures of a prompt at once."""

    beta: Positive = Field(
        default=100.0, description="steepness in the weighted log-ratios; larger keeps the policy closer to the reference"
    )


class DiffusionNFTSettings(Section):
    """DiffusionNFT, which learns from bad pictures too, by a policy that mirrors the trained one."""

    beta: Positive = Field(
        default=1.0, description="how far the two implicit policies lie from the reference; 1 is the trained policy itself"
    )
    weighting: ErrorWeighting = Field(
        default="self_normalised", description="self_normalised (each error divided by its own size, as published) or uniform"
    )


class KTOSettings(Section):
    """Diffusion-KTO, on single likes and dislikes."""

    beta: Positive = Field(default=1000.0, description="steepness of the utility; larger keeps the policy closer to the reference")
    dislike_weight: AtLeastZero = Field(default=1.0, description="weight of disliked pictures; liked ones have weight 1")


class MaPOSettings(Section):
    """MaPO, without a reference."""

    beta: AtLeastZero = Field(default=0.1, description="weight of the preference term; with 0 only the winner's denoising error is trained")
    sharpness: Positive = Field(default=1000.0, description="T, the steepness of the preference term in the difference of errors")


SETTINGS: Mapping[ObjectiveName, type[Section]] = {
    "d3po": D3POSettings,
    "d3po_branch": D3POBranchSettings,
    "ipo_step": IPOStepSettings,
    "ddpo": DDPOSettings,
    "dpok": DPOKSettings,
    "reward_weighted": RewardWeightedSettings,
    "sft": SFTSettings,
    "diffusion_dpo": DiffusionDPOSettings,
    "flow_dpo": FlowDPOSettings,
    "ipo": IPOSettings,
    "dgpo": DGPOSettings,
    "diffusion_nft": DiffusionNFTSettings,
    "kto": KTOSettings,
    "mapo": MaPOSettings,
}
