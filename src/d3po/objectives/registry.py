"""All objectives by name: what each needs, and its own settings with their sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
class ObjectiveEntry:
    """An objective as it is found by its name."""

    factory: Callable[..., Objective]
    needs: Needs
    defaults: Mapping[str, float]
    """Its numbers, and its own value of each."""
    or_zero: frozenset[str] = frozenset()
    """Those of its numbers that may also be 0, which switches a part of the loss off; of others nothing would be left to learn from."""
    settings: Mapping[str, str]
    """Other settings of a run that belong to it, as `d3po init --objective` sets them."""
    summary: str
    source: str

    def lines(self, name: str) -> list[str]:
        """The objective in words."""
        own = [f"{key} = {value:g}" for key, value in self.defaults.items()] + [f"{key} = {value}" for key, value in self.settings.items()]
        return [
            f"{name}: {self.summary}",
            f"  reads     {self.needs.words()}",
            f"  its own   {', '.join(own) or 'no settings'}",
            f"  source    {self.source}",
        ]


OBJECTIVES: dict[ObjectiveName, ObjectiveEntry] = {
    "d3po": ObjectiveEntry(
        factory=D3PO,
        needs=STEP_PAIRS,
        defaults={"beta": 0.1, "clip_range": 0.1},
        settings={},
        summary="every denoising step of the winner becomes likelier, of the loser less likely",
        source="Yang et al. 2024, arXiv 2311.13231",
    ),
    "d3po_branch": ObjectiveEntry(
        factory=D3PO,
        needs=Needs(labels="pairs", evidence="trajectories", reference="chosen", same_state=True),
        defaults={"beta": 10.0, "clip_range": 0.1},
        settings={"sampling.branch": "true", "objective.log_prob": "mean", "objective.clip": "two_sided"},
        summary="D3PO on the one step in which two pictures parted, so that both actions are of one state",
        source="form of Liang et al. 2024 (SPO), arXiv 2406.04314; judged by the finished picture, or by the step (sampling.judged)",
    ),
    "ipo_step": ObjectiveEntry(
        factory=IPO,
        needs=STEP_PAIRS,
        defaults={"beta": 10.0},
        settings={"objective.log_prob": "mean"},
        summary="the margin of every denoising step is drawn to a finite place instead of pushed for ever",
        source="Azar et al. 2023, arXiv 2310.12036, applied to D3PO's steps",
    ),
    "ddpo": ObjectiveEntry(
        factory=DDPO,
        needs=Needs(labels="scores", evidence="trajectories", reference="sampler"),
        defaults={"clip_range": 1e-4},
        settings={"objective.log_prob": "mean", "objective.step_weighting": "uniform"},
        summary="policy gradient on denoising steps, clipped as in PPO, advantages by prompt",
        source="Black et al. 2023, arXiv 2305.13301",
    ),
    "dpok": ObjectiveEntry(
        factory=DPOK,
        needs=Needs(labels="scores", evidence="trajectories", reference="sampler", exact_kl=True),
        defaults={"alpha": 1.0, "beta": 1.0, "clip_range": 1e-4},
        or_zero=frozenset({"beta"}),
        settings={"objective.log_prob": "mean", "objective.step_weighting": "uniform"},
        summary="policy gradient, held to the pretrained model by the exact KL of each step",
        source="Fan et al. 2023, arXiv 2305.16381",
    ),
    "reward_weighted": ObjectiveEntry(
        factory=RewardWeighted,
        needs=Needs(labels="scores", evidence="pictures", reference="none"),
        defaults={"temperature": 0.5},
        settings={},
        summary="denoising error of the sampled pictures, weighted by exp(score / temperature)",
        source="Lee et al. 2023, arXiv 2302.12192",
    ),
    "sft": ObjectiveEntry(
        factory=SFT,
        needs=Needs(labels="likes", evidence="pictures", reference="none"),
        defaults={},
        settings={},
        summary="denoising error of the liked pictures alone",
        source="the baseline of Yang et al. 2024, arXiv 2311.13231, table 1",
    ),
    "diffusion_dpo": ObjectiveEntry(
        factory=DiffusionDPO,
        needs=replace(PICTURE_PAIRS, model_kind="discrete"),
        defaults={"beta": 5000.0},
        settings={"objective.reference": "fixed"},
        summary="winners are denoised better than by the reference, losers worse; for discrete-time models",
        source="Wallace et al. 2023, arXiv 2311.12908",
    ),
    "flow_dpo": ObjectiveEntry(
        factory=DiffusionDPO,
        needs=replace(PICTURE_PAIRS, model_kind="flow"),
        defaults={"beta": 500.0},
        settings={"objective.reference": "fixed"},
        summary="Diffusion-DPO on the velocity, for flow models",
        source="Liu et al. 2025, arXiv 2501.13918",
    ),
    "ipo": ObjectiveEntry(
        factory=IPO,
        needs=PICTURE_PAIRS,
        defaults={"beta": 1000.0},
        settings={"objective.reference": "fixed"},
        summary="Diffusion-DPO with a finite margin to aim at",
        source="Azar et al. 2023, arXiv 2310.12036",
    ),
    "kto": ObjectiveEntry(
        factory=KTO,
        needs=Needs(labels="likes", evidence="pictures", reference="chosen", batch_mean=True),
        defaults={"beta": 1000.0, "dislike_weight": 1.0},
        or_zero=frozenset({"dislike_weight"}),
        settings={"objective.reference": "fixed"},
        summary="liked pictures better than the reference point, disliked ones worse; no pairs needed",
        source="Li et al. 2024, arXiv 2404.04465",
    ),
    "mapo": ObjectiveEntry(
        factory=MaPO,
        needs=Needs(labels="pairs", evidence="pictures", reference="none"),
        defaults={"beta": 0.1, "sharpness": 1000.0},
        or_zero=frozenset({"beta"}),
        settings={},
        summary="winners denoised better than losers, without any reference",
        source="Hong et al. 2024, arXiv 2406.06424",
    ),
}


def numbers_of(name: ObjectiveName, settings: Mapping[str, object]) -> dict[str, float]:
    """The objective's numbers: as the settings give them, its own where they are "own" or absent.

    Raises:
        ConfigError: one is 0 that must not be.
    """
    entry, numbers = OBJECTIVES[name], dict[str, float]()
    for key, own in entry.defaults.items():
        given = settings.get(key, "own")
        numbers[key] = float(given) if isinstance(given, int | float) else own
        if numbers[key] == 0 and key not in entry.or_zero:
            raise ConfigError(
                f"objective.{key} is 0, and {name} needs a number above 0; set it to one, or to 'own', which is {own:g} for this objective"
            )
    return numbers


def for_model(name: ObjectiveName, *, flow: bool) -> ObjectiveName:
    """The objective as it is called for models of that kind: itself, unless its formula was made for the other kind."""
    entry, kind = OBJECTIVES[name], "flow" if flow else "discrete"
    if entry.needs.model_kind in ("any", kind):
        return name
    return next(other for other, its in OBJECTIVES.items() if its.factory is entry.factory and its.needs.model_kind == kind)


def build(name: ObjectiveName, settings: Mapping[str, object]) -> Objective:
    """The objective of that name; of `settings` it takes those it knows.

    Raises:
        ConfigError: as of `numbers_of`.
    """
    factory = OBJECTIVES[name].factory
    taken = {key: settings[key] for key in signature(factory).parameters if key in settings}
    return factory(**(taken | numbers_of(name, settings)))
