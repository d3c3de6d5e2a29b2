"""How much work a round is, counted from the settings alone. Nothing is measured here, and nothing is run."""

import math
from dataclasses import dataclass

from d3po.config import RunConfig
from d3po.models.base import AbstractPolicy
from d3po.models.replay import Replay
from d3po.objectives.base import Needs
from d3po.objectives.registry import OBJECTIVES
from d3po.training.likelihood import likelihood_of
from d3po.training.trainer import looks_back


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model and its sampler decides how much work a run is."""

    steps: int
    """Denoising steps of the sampler."""
    stochastic: int
    """Those that have a density."""
    trained: int
    """Steps, or noise levels, that an update draws."""
    guided_forwards: int
    """Rows that an image takes in the network where it is guided."""
    guidance_is_input: bool = False
    """Whether the network is told the scale, and so is trained as it is sampled."""


def shape_of(config: RunConfig, policy: AbstractPolicy, replay: Replay) -> Shape:
    """The shape of a run with these settings on this model.

    Raises:
        ConfigError: training.timestep_range holds no step that can be trained.
    """
    likelihood = likelihood_of(policy, replay, OBJECTIVES[config.objective.name].needs)
    choices = likelihood.choices(config.training.timestep_range)
    return Shape(
        steps=len(replay.grid),
        stochastic=int(replay.transition.stochastic(replay.grid).sum()),
        trained=likelihood.count(config.training.timestep_fraction, len(choices)),
        guided_forwards=policy.guided_rows,
        guidance_is_input=policy.guidance_is_input,
    )


@dataclass(frozen=True, kw_only=True)
class Forwards:
    """Rows of the network: a row is one image at one denoising step, or noise level, doubled by guidance."""

    sampling: int
    reference: int
    """Of training, without a gradient: the reference's, the pretrained model's, those of a first look at the update and those that only measure the KL."""
    training: int
    """Of training, with a gradient."""

    @property
    def total(self) -> int:
        return self.sampling + self.reference + self.training


@dataclass(frozen=True, kw_only=True)
class RoundWork:
    """The work of one round without its evaluation. Ties, and pairs that share a picture, can only make it less."""

    images: int
    pairs: int
    """That somebody is asked about."""
    labels: int
    """Pairs of objectives that learn from pairs; judged pictures of the others."""
    updates: int
    forwards: Forwards


def work_of_round(config: RunConfig, shape: Shape, round: int) -> RoundWork:
    """The work of the round; those after the first are all alike."""
    sampling, training = config.sampling, config.training
    needs = OBJECTIVES[config.objective.name].needs
    pairs = pairs_of_a_prompt(config)
    judged = _judged_of_a_prompt(config, needs, pairs)
    prompts = sampling.prompts_per_round
    return RoundWork(
        images=prompts * sampling.images_per_prompt,
        pairs=prompts * pairs,
        labels=prompts * (pairs if needs.labels == "pairs" else judged),
        updates=training.epochs * math.ceil(prompts / training.prompts_per_update),
        forwards=_forwards(config, shape, needs, round, judged=prompts * judged),
    )


def pairs_of_a_prompt(config: RunConfig) -> int:
    """How many pairs of a prompt's images somebody is asked about."""
    every = math.comb(config.sampling.images_per_prompt, 2)
    return min(config.feedback.pairs_per_prompt or every, every)


def evaluated_images(config: RunConfig) -> int:
    """Held-out pictures of the whole run: the base model's, and those of every round or of the last."""
    evaluations = 1 + (config.rounds if config.evaluation.every_round else 1)
    return evaluations * config.evaluation.prompts * config.evaluation.images_per_prompt


def sampled_forwards(config: RunConfig, shape: Shape, images: int) -> int:
    """Rows that sampling so many images takes."""
    return images * shape.steps * _guided(config, shape)


def _judged_of_a_prompt(config: RunConfig, needs: Needs, pairs: int) -> int:
    """How many of a prompt's images the objective hears of: all where each has its measured score, else those in pairs."""
    every = config.sampling.images_per_prompt
    return every if needs.labels == "scores" and config.feedback.source == "reward" else min(every, 2 * pairs)


def _forwards(config: RunConfig, shape: Shape, needs: Needs, round: int, *, judged: int) -> Forwards:
    images = config.sampling.prompts_per_round * config.sampling.images_per_prompt
    guided = _guided(config, shape) if needs.evidence == "trajectories" and config.training.guided else 1
    steps = 1 if config.sampling.branch else shape.trained
    seen = config.training.epochs * judged * steps * guided
    known = config.training.guided and (round == 0 or needs.reference == "sampler" or config.objective.reference == "per_round")
    log_probs = 0 if needs.evidence == "pictures" or known else images * shape.stochastic * guided
    return Forwards(
        sampling=sampled_forwards(config, shape, images),
        reference=log_probs + _looks_without_gradient(needs) * seen + _measured(config, shape, needs, steps),
        training=seen,
    )


def _looks_without_gradient(needs: Needs) -> int:
    """How often an update passes its images through the network beside the pass it takes the gradient of."""
    beside = 1 if needs.exact_kl or (needs.evidence == "pictures" and needs.reference != "none") else 0
    return beside + (1 + beside if needs.batch_mean else 0)


def _measured(config: RunConfig, shape: Shape, needs: Needs, steps: int) -> int:
    """Rows that measure nothing but the KL, where what is trained is not the step that is sampled: of one image a prompt, by policy and reference.

    Every update does, or, of objectives without a reference, the round's last alone.
    """
    as_sampled = config.training.guided or config.sampling.guidance == 1 or shape.guidance_is_input
    if needs.evidence == "trajectories" and as_sampled:
        return 0
    prompts, together = config.sampling.prompts_per_round, config.training.prompts_per_update
    in_the_last = (prompts % together or together) if looks_back(config, last=True) else 0
    measured = in_the_last if needs.reference == "none" else config.training.epochs * prompts
    return 2 * measured * steps * _guided(config, shape)


def _guided(config: RunConfig, shape: Shape) -> int:
    return 1 if config.sampling.guidance == 1 else shape.guided_forwards
