"""All objectives by name: what each needs, and its own settings with their sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature

from d3po.errors import ConfigError
from d3po.objectives.base import Needs, Objective
from d3po.objectives.d3po import D3PO
from d3po.objectives.ddpo import DDPO
from d3po.objectives.diffusion_dpo import DiffusionDPO
from d3po.objectives.dpok import DPOK
from d3po.objectives.ipo import IPO
from d3po.objectives.kto import KTO
from d3po.objectives.mapo import MaPO
from d3po.objectives.reward_weighted import RewardWeighted
from d3po.objectives.sft import SFT
from d3po.options import ObjectiveName

STEP_PAIRS = Needs(labels="pairs", evidence="trajectories", reference="chosen")
PICTURE_PAIRS = Needs(labels="pairs", evidence="pictures", reference="chosen")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An objective as it is found by its name."""

    maker: Callable[..., Objective]
    needs: Needs
    own: Mapping[str, float]
    """Its numbers, and its own value of each."""
    or_zero: frozenset[str] = frozenset()
    """Those of its numbers that may also be 0, which switches a part of the loss off; of others nothing would be left to learn from."""
    settings: Mapping[str, str]
    """Other settings of a run that belong to it, as `d3po init --objective` sets them."""
    idea: str
    source: str

    def lines(self, name: str) -> list[str]:
        """The objective in words."""
        own = [f"{key} = {value:g}" for key, value in self.own.items()] + [f"{key} = {value}" for key, value in self.settings.items()]
        return [
            f"{name}: {self.idea}",
            f"  reads     {self.needs.words()}",
            f"  its own   {', '.join(own) or 'no settings'}",
            f"  source    {self.source}",
        ]


OBJECTIVES: dict[ObjectiveName, Entry] = {
    "d3po": Entry(
        maker=D3PO,
        needs=STEP_PAIRS,
        own={"beta": 0.1, "clip_range": 0.1},
        settings={},
        idea="every denoising step of the winner becomes likelier, of the loser less likely",
        source="Yang et al. 2024, arXiv 2311.13231",
    ),
    "d3po_branch": Entry(
        maker=D3PO,
        needs=Needs(labels="pairs", evidence="trajectories", reference="chosen", same_state=True),
        own={"beta": 10.0, "clip_range": 0.1},
        settings={"sampling.branch": "true", "objective.log_prob": "mean", "objective.clip": "two_sided"},
        idea="D3PO on the one step in which two pictures parted, so that both actions are of one state",
        source="form of Liang et al. 2024 (SPO), arXiv 2406.04314; judged by the finished picture, or by the step (sampling.judged)",
    ),
    "ipo_step": Entry(
        maker=IPO,
        needs=STEP_PAIRS,
        own={"beta": 10.0},
        settings={"objective.log_prob": "mean"},
        idea="the margin of every denoising step is drawn to a finite place instead of pushed for ever",
        source="Azar et al. 2023, arXiv 2310.12036, applied to D3PO's steps",
    ),
    "ddpo": Entry(
        maker=DDPO,
        needs=Needs(labels="scores", evidence="trajectories", reference="sampler"),
        own={"clip_range": 1e-4},
        settings={"objective.log_prob": "mean", "objective.step_weighting": "uniform"},
        idea="policy gradient on denoising steps, clipped as in PPO, advantages by prompt",
        source="Black et al. 2023, arXiv 2305.13301",
    ),
    "dpok": Entry(
        maker=DPOK,
        needs=Needs(labels="scores", evidence="trajectories", reference="sampler", exact_kl=True),
        own={"alpha": 1.0, "beta": 1.0, "clip_range": 1e-4},
        or_zero=frozenset({"beta"}),
        settings={"objective.log_prob": "mean", "objective.step_weighting": "uniform"},
        idea="policy gradient, held to the pretrained model by the exact KL of each step",
        source="Fan et al. 2023, arXiv 2305.16381",
    ),
    "reward_weighted": Entry(
        maker=RewardWeighted,
        needs=Needs(labels="scores", evidence="pictures", reference="none"),
        own={"temperature": 0.5},
        settings={},
        idea="denoising error of the sampled pictures, weighted by exp(score / temperature)",
        source="Lee et al. 2023, arXiv 2302.12192",
    ),
    "sft": Entry(
        maker=SFT,
        needs=Needs(labels="likes", evidence="pictures", reference="none"),
        own={},
        settings={},
        idea="denoising error of the liked pictures alone",
        source="the baseline of Yang et al. 2024, arXiv 2311.13231, table 1",
    ),
    "diffusion_dpo": Entry(
        maker=DiffusionDPO,
        needs=PICTURE_PAIRS,
        own={"beta": 5000.0},
        settings={"objective.reference": "fixed"},
        idea="winners are denoised better than by the reference, losers worse; for discrete-time models",
        source="Wallace et al. 2023, arXiv 2311.12908",
    ),
    "flow_dpo": Entry(
        maker=DiffusionDPO,
        needs=PICTURE_PAIRS,
        own={"beta": 500.0},
        settings={"objective.reference": "fixed"},
        idea="Diffusion-DPO on the velocity, for flow models",
        source="Liu et al. 2025, arXiv 2501.13918",
    ),
    "ipo": Entry(
        maker=IPO,
        needs=PICTURE_PAIRS,
        own={"beta": 1000.0},
        settings={"objective.reference": "fixed"},
        idea="Diffusion-DPO with a finite margin to aim at",
        source="Azar et al. 2023, arXiv 2310.12036",
    ),
    "kto": Entry(
        maker=KTO,
        needs=Needs(labels="likes", evidence="pictures", reference="chosen", batch_mean=True),
        own={"beta": 1000.0, "dislike_weight": 1.0},
        or_zero=frozenset({"dislike_weight"}),
        settings={"objective.reference": "fixed"},
        idea="liked pictures better than the reference point, disliked ones worse; no pairs needed",
        source="Li et al. 2024, arXiv 2404.04465",
    ),
    "mapo": Entry(
        maker=MaPO,
        needs=Needs(labels="pairs", evidence="pictures", reference="none"),
        own={"beta": 0.1, "sharpness": 1000.0},
        or_zero=frozenset({"beta"}),
        settings={},
        idea="winners denoised better than losers, without any reference",
        source="Hong et al. 2024, arXiv 2406.06424",
    ),
}


def numbers_of(name: ObjectiveName, settings: Mapping[str, object]) -> dict[str, float]:
    """The objective's numbers: as the settings give them, its own where they are "own" or absent.

    Raises:
        ConfigError: one is 0 that must not be.
    """
    entry, numbers = OBJECTIVES[name], dict[str, float]()
    for key, own in entry.own.items():
        given = settings.get(key, "own")
        numbers[key] = float(given) if isinstance(given, int | float) else own
        if numbers[key] == 0 and key not in entry.or_zero:
            raise ConfigError(
                f"objective.{key} is 0, and {name} needs a number above 0; set it to one, or to 'own', which is {own:g} for this objective"
            )
    return numbers


def build(name: ObjectiveName, settings: Mapping[str, object]) -> Objective:
    """The objective of that name; of `settings` it takes those it knows.

    Raises:
        ConfigError: as of `numbers_of`.
    """
    maker = OBJECTIVES[name].maker
    taken = {key: settings[key] for key in signature(maker).parameters if key in settings}
    return maker(**(taken | numbers_of(name, settings)))
