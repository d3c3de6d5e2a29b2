"""Counts the work of a round from the settings alone, without running or measuring anything.

A forward pass is one image at one denoising step (or noise level) in the network. Classifier-free guidance doubles it.
"""

import math
from dataclasses import dataclass

from d3po.annotation.selection import number_of_pairs
from d3po.config import RunConfig
from d3po.models.base import AbstractPolicy
from d3po.models.replay import Replay
from d3po.objectives.base import Needs
from d3po.objectives.registry import OBJECTIVES
from d3po.training.likelihood import likelihood_of
from d3po.training.trainer import looks_back


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The properties of a model and its sampler on which the work of a run depends."""

    steps: int
    """Denoising steps of the sampler."""
    stochastic: int
    """Denoising steps that are random, and so have a density."""
    trained: int
    """Steps, or noise levels, that are drawn for each update."""
    guided_forwards: int
    """Forward passes of an image at a guided step."""
    guidance_is_input: bool = False
    """Whether the network takes the guidance scale as input, so that it is trained as it is sampled."""


def shape_of(config: RunConfig, policy: AbstractPolicy, replay: Replay) -> Shape:
    """Determine the shape of a run with these settings on this model.

    Raises:
        ConfigError: training.timestep_range holds no step that can be trained.
    """
    likelihood = likelihood_of(policy, replay, OBJECTIVES[config.objective.name].needs)
    choices = likelihood.choices(config.training.timestep_range)
    return Shape(
        steps=len(replay.grid),
        stochastic=int(replay.transition.stochastic(replay.grid).sum()),
        trained=likelihood.count(config.training.timestep_fraction, len(choices)),
        guided_forwards=policy.guided_forwards,
        guidance_is_input=policy.guidance_is_input,
    )


@dataclass(frozen=True, kw_only=True)
class Forwards:
    """Forward passes of the network, by purpose."""

    sampling: int
    reference: int
    """Passes in training without a gradient: of the reference, of the pretrained model, for batch statistics, and for measuring the KL."""
    training: int
    """Passes in training with a gradient."""

    @property
    def total(self) -> int:
        return self.sampling + self.reference + self.training


@dataclass(frozen=True, kw_only=True)
class RoundWork:
    """The work of one round without its evaluation: an upper bound, because ties and pairs that share a picture need less."""

    images: int
    pairs: int
    """Pairs that are compared."""
    labels: int
    """Pairs, for objectives that learn from pairs; labelled pictures, for the others."""
    updates: int
    forwards: Forwards


def work_of_round(config: RunConfig, shape: Shape, round: int) -> RoundWork:
    """Count the work of a round. All rounds after the first need the same."""
    sampling, training = config.sampling, config.training
    needs = OBJECTIVES[config.objective.name].needs
    pairs = pairs_of_a_prompt(config)
    labelled = _labelled_images_of_a_prompt(config, needs, pairs)
    prompts = sampling.prompts_per_round
    return RoundWork(
        images=prompts * sampling.images_per_prompt,
        pairs=prompts * pairs,
        labels=prompts * (pairs if needs.labels == "pairs" else labelled),
        updates=training.epochs * math.ceil(prompts / training.prompts_per_update),
        forwards=_forwards(config, shape, needs, round, labelled=prompts * labelled),
    )


def pairs_of_a_prompt(config: RunConfig) -> int:
    """How many pairs of a prompt's images are compared."""
    return number_of_pairs(config.sampling.images_per_prompt, config.feedback.pairs_per_prompt)


def evaluated_images(config: RunConfig) -> int:
    """The number of held-out pictures of the whole run: the base model's, and those of every round or of the last."""
    evaluations = 1 + (config.rounds if config.evaluation.every_round else 1)
    return evaluations * config.evaluation.prompts * config.evaluation.images_per_prompt


def sampled_forwards(config: RunConfig, shape: Shape, images: int) -> int:
    """The number of forward passes that sampling `images` images takes."""
    return images * shape.steps * _guided(config, shape)


def _labelled_images_of_a_prompt(config: RunConfig, needs: Needs, pairs: int) -> int:
    """How many of a prompt's images get a label: all if each has its measured score, else those that are in pairs."""
    every = config.sampling.images_per_prompt
    return every if needs.labels == "scores" and config.feedback.source == "reward" else min(every, 2 * pairs)


def _forwards(config: RunConfig, shape: Shape, needs: Needs, round: int, *, labelled: int) -> Forwards:
    images = config.sampling.prompts_per_round * config.sampling.images_per_prompt
    guided = _guided(config, shape) if needs.evidence == "trajectories" and config.training.guided else 1
    steps = 1 if config.sampling.branch else shape.trained
    seen = config.training.epochs * labelled * steps * guided
    known = config.training.guided and (round == 0 or needs.reference == "sampler" or config.objective.reference == "per_round")
    log_probs = 0 if needs.evidence == "pictures" or known else images * shape.stochastic * guided
    return Forwards(
        sampling=sampled_forwards(config, shape, images),
        reference=log_probs + _looks_without_gradient(needs) * seen + _measured(config, shape, needs, steps),
        training=seen,
    )


def _looks_without_gradient(needs: Needs) -> int:
    """How many passes without a gradient an update needs for each pass with one."""
    beside = 1 if needs.exact_kl or (needs.evidence == "pictures" and needs.reference != "none") else 0
    return beside + (1 + beside if needs.batch_mean else 0)


def _measured(config: RunConfig, shape: Shape, needs: Needs, steps: int) -> int:
    """Forward passes that only measure the KL, where the trained prediction is not the sampled step: one image a prompt, by policy and reference.

    Every update measures it. For objectives without a reference only the round's last update does.
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
