"""The objectives by name, with what each needs and where it is published; their settings are in `d3po.objective_settings`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from d3po.objective_settings import SETTINGS, ObjectiveName
from d3po.objectives.base import Needs, Objective
from d3po.objectives.d3po import D3PO
from d3po.objectives.ddpo import DDPO
from d3po.objectives.dgpo import DGPO
from d3po.objectives.diffusion_dpo import DiffusionDPO
from d3po.objectives.diffusion_nft import DiffusionNFT
from d3po.objectives.dpok import DPOK
from d3po.objectives.ipo import IPO
from d3po.objectives.kto import KTO
from d3po.objectives.mapo import MaPO
from d3po.objectives.reward_weighted import RewardWeighted
from d3po.objectives.sft import SFT

STEP_PAIRS = Needs(labels="pairs", evidence="trajectories", reference="chosen")
PICTURE_PAIRS = Needs(labels="pairs", evidence="pictures", reference="chosen")


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry:
    """What is known about one objective."""

    factory: Callable[..., Objective]
    """Makes the objective from its settings."""
    needs: Needs
    settings: Mapping[str, str]
    """Other settings of a run that the objective needs, which `d3po init --objective` sets."""
    summary: str
    source: str
    """Where it is published."""

    def lines(self, name: ObjectiveName) -> list[str]:
        """Describe the objective in lines of text, as `d3po objectives` prints them."""
        settings = [
            *(f"{key} = {_written(value)}" for key, value in default_settings(name).items()),
            *(f"{key} = {value}" for key, value in self.settings.items()),
        ]
        return [
            f"{name}: {self.summary}",
            f"  reads     {self.needs.words()}",
            f"  settings  {', '.join(settings) or 'none'}",
            f"  source    {self.source}",
        ]


OBJECTIVES: dict[ObjectiveName, ObjectiveEntry] = {
    "d3po": ObjectiveEntry(
        factory=D3PO,
        needs=STEP_PAIRS,
        settings={},
        summary="every denoising step of the winner is made more likely, every step of the loser less likely",
        source="Yang et al. 2024, arXiv 2311.13231",
    ),
    "d3po_branch": ObjectiveEntry(
        factory=D3PO,
        needs=Needs(labels="pairs", evidence="trajectories", reference="chosen", same_state=True),
        settings={"sampling.branch": "true", "objective.log_prob": "mean"},
        summary="D3PO on the one step at which two pictures were branched, so that both actions share their state",
        source="form of Liang et al. 2024 (SPO), arXiv 2406.04314; compared by the finished picture, or by the step (sampling.judged)",
    ),
    "ipo_step": ObjectiveEntry(
        factory=IPO,
        needs=STEP_PAIRS,
        settings={"objective.log_prob": "mean"},
        summary="the margin of every denoising step is drawn to a finite value instead of growing without bound",
        source="Azar et al. 2023, arXiv 2310.12036, applied to D3PO's steps",
    ),
    "ddpo": ObjectiveEntry(
        factory=DDPO,
        needs=Needs(labels="scores", evidence="trajectories", reference="sampler"),
        settings={"objective.log_prob": "mean", "objective.step_weighting": "uniform"},
        summary="policy gradient on denoising steps, clipped as in PPO, advantages by prompt",
        source="Black et al. 2023, arXiv 2305.13301",
    ),
    "dpok": ObjectiveEntry(
        factory=DPOK,
        needs=Needs(labels="scores", evidence="trajectories", reference="sampler", exact_kl=True),
        settings={"objective.log_prob": "mean", "objective.step_weighting": "uniform"},
        summary="policy gradient, with the exact KL of each step to the pretrained model as a penalty",
        source="Fan et al. 2023, arXiv 2305.16381",
    ),
    "reward_weighted": ObjectiveEntry(
        factory=RewardWeighted,
        needs=Needs(labels="scores", evidence="pictures", reference="none"),
        settings={},
        summary="denoising error of the sampled pictures, weighted by exp(score / temperature)",
        source="Lee et al. 2023, arXiv 2302.12192",
    ),
    "sft": ObjectiveEntry(
        factory=SFT,
        needs=Needs(labels="likes", evidence="pictures", reference="none"),
        settings={},
        summary="supervised fine-tuning: denoising error of the liked pictures alone",
        source="the baseline of Yang et al. 2024, arXiv 2311.13231, table 1",
    ),
    "diffusion_dpo": ObjectiveEntry(
        factory=DiffusionDPO,
        needs=replace(PICTURE_PAIRS, model_kind="discrete"),
        settings={"objective.reference": "fixed"},
        summary="winners are denoised better than by the reference, losers worse; for discrete-time models",
        source="Wallace et al. 2023, arXiv 2311.12908",
    ),
    "flow_dpo": ObjectiveEntry(
        factory=DiffusionDPO,
        needs=replace(PICTURE_PAIRS, model_kind="flow"),
        settings={"objective.reference": "fixed"},
        summary="Diffusion-DPO on the velocity, for flow models",
        source="Liu et al. 2025, arXiv 2501.13918",
    ),
    "ipo": ObjectiveEntry(
        factory=IPO,
        needs=PICTURE_PAIRS,
        settings={"objective.reference": "fixed"},
        summary="Diffusion-DPO with a finite margin to aim at",
        source="Azar et al. 2023, arXiv 2310.12036",
    ),
    "dgpo": ObjectiveEntry(
        factory=DGPO,
        needs=Needs(labels="scores", evidence="pictures", reference="chosen"),
        settings={"objective.reference": "fixed"},
        summary="Diffusion-DPO on all pictures of a prompt at once, each weighted by its advantage",
        source="Luo et al. 2025, arXiv 2510.08425",
    ),
    "diffusion_nft": ObjectiveEntry(
        factory=DiffusionNFT,
        needs=Needs(labels="likes", evidence="pictures", reference="chosen", change=True),
        settings={"objective.reference": "per_round"},
        summary="the policy is drawn to good pictures, and its mirror image about the reference to bad ones; no pairs needed",
        source="Zheng et al. 2025, arXiv 2509.16117",
    ),
    "kto": ObjectiveEntry(
        factory=KTO,
        needs=Needs(labels="likes", evidence="pictures", reference="chosen", batch_mean=True),
        settings={"objective.reference": "fixed"},
        summary="liked pictures better than the reference point, disliked ones worse; no pairs needed",
        source="Li et al. 2024, arXiv 2404.04465",
    ),
    "mapo": ObjectiveEntry(
        factory=MaPO,
        needs=Needs(labels="pairs", evidence="pictures", reference="none"),
        settings={},
        summary="winners denoised better than losers, without any reference",
        source="Hong et al. 2024, arXiv 2406.06424",
    ),
}


def table() -> Iterator[list[str]]:
    """The table of objectives in docs/methods/README.md, heading first."""
    yield ["objective", "learns from", "looks at", "compares with"]
    for name, entry in OBJECTIVES.items():
        needs = entry.needs
        looks_at = "that step" if needs.same_state else {"trajectories": "denoising steps", "pictures": "pictures"}[needs.evidence]
        against = {"none": "nothing", "chosen": "a chosen reference", "sampler": "the policy that sampled"}[needs.reference]
        yield [
            f"[`{name}`]({name}.md)",
            needs.labels + (" that part in one step" if needs.same_state else ""),
            looks_at + (", of flow models" if needs.model_kind == "flow" else ""),
            against + (", and the pretrained model" if needs.exact_kl else ""),
        ]


def default_settings(name: ObjectiveName) -> dict[str, float | str]:
    """The settings that it alone reads (`[objective.NAME]` in run.toml), and their defaults."""
    return SETTINGS[name]().model_dump()


def for_model(name: ObjectiveName, *, flow: bool) -> ObjectiveName:
    """The name of the objective's form for flow or discrete-time models; the same name, unless its formula is for the other kind."""
    entry, kind = OBJECTIVES[name], "flow" if flow else "discrete"
    if entry.needs.model_kind in ("any", kind):
        return name
    return next(other for other, its in OBJECTIVES.items() if its.factory is entry.factory and its.needs.model_kind == kind)


def build(name: ObjectiveName, **settings: object) -> Objective:
    """Make the objective of this name with the given settings, and defaults for the others.

    Raises:
        ValueError: the objective has no such setting, or a setting cannot have the value.
    """
    return OBJECTIVES[name].factory(**SETTINGS[name](**settings).model_dump())


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
