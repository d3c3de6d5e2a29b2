"""Estimates the cost of a run before it is run: counts come from the settings, time and memory from measured steps."""

import math
from dataclasses import dataclass

import torch

from d3po.config import RunConfig
from d3po.diffusion.divergence import sketch_width
from d3po.run.cost.counting import Shape, evaluated_images, sampled_forwards, shape_of, work_of_round
from d3po.run.cost.probe import Probe, largest_shape, probe
from d3po.run.prompts import prompts_of_round
from d3po.run.session import Session


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The estimated cost of a whole run. For forward passes see `d3po.run.cost.counting`."""

    rounds: int
    images_per_round: int
    pairs_per_round: int
    updates_per_round: int
    sampling_forwards: int
    reference_forwards: int
    training_forwards: int
    evaluation_forwards: int
    stored_bytes: int
    seconds: float
    peak_bytes: int

    def lines(self) -> list[str]:
        """Describe the plan in lines of text."""
        return [
            f"rounds               {self.rounds}",
            f"images               {self.images_per_round} a round, {self.rounds * self.images_per_round} in all",
            f"pairs                {self.pairs_per_round} a round, {self.rounds * self.pairs_per_round} in all",
            f"updates              {self.updates_per_round} a round, {self.rounds * self.updates_per_round} in all",
            f"forward passes       {self.sampling_forwards:,} sampling, {self.training_forwards:,} training, {self.reference_forwards:,} training without "
            f"gradient, {self.evaluation_forwards:,} evaluating",
            f"disk                 {self.stored_bytes / 1e6:,.0f} MB of latents",
            f"memory               {self.peak_bytes / 1e6:,.0f} MB at the peak of a measured sampling, decoding and training step",
            f"time                 {self.seconds / 60:.1f} min, estimated from these steps on this machine",
        ]


def plan_run(session: Session) -> Plan:
    """Count the work of the whole run and measure one sampling, one decoding and one training step."""
    config, policy = session.run.config, session.policy
    sampling = config.sampling
    prompts_of_round(session.run.folder.prompts(), sampling.prompts_per_round, seed=config.seed, round=0)
    shape = shape_of(config, policy, session.replay)
    works = [work_of_round(config, shape, round) for round in range(config.rounds)]
    images, evaluated = sum(work.images for work in works), evaluated_images(config)
    without_gradient = sum(work.forwards.sampling + work.forwards.reference for work in works) + sampled_forwards(config, shape, evaluated)
    training_forwards = sum(work.forwards.training for work in works)
    cost = probe_run(session, shape)
    precision: torch.dtype = getattr(torch, sampling.stored)
    dimensions = math.prod(largest_shape(session))
    latent_bytes = dimensions * precision.itemsize
    return Plan(
        rounds=config.rounds,
        images_per_round=works[0].images,
        pairs_per_round=works[0].pairs,
        updates_per_round=works[0].updates,
        sampling_forwards=sum(work.forwards.sampling for work in works),
        reference_forwards=sum(work.forwards.reference for work in works),
        training_forwards=training_forwards,
        evaluation_forwards=sampled_forwards(config, shape, evaluated),
        stored_bytes=images * ((shape.steps + 1) * latent_bytes + shape.steps * max(4, precision.itemsize) * sketch_width(dimensions)),
        seconds=cost.sampling_seconds * without_gradient
        + cost.training_seconds * training_forwards
        + cost.decoding_seconds * (images + evaluated),
        peak_bytes=cost.peak_bytes,
    )


def probe_run(session: Session, shape: Shape) -> Probe:
    """Measure calls of the batch sizes that the run will use."""
    config = session.run.config
    steps = 1 if config.sampling.branch else shape.trained
    return probe(session, prompts=_prompts_in_a_call(config), sampled=_sampled_in_a_call(config), trained=_trained_in_a_call(config, steps))


def _prompts_in_a_call(config: RunConfig) -> int:
    return min(config.sampling.prompts_per_shard, max(config.sampling.prompts_per_round, config.evaluation.prompts))


def _sampled_in_a_call(config: RunConfig) -> int:
    """The number of images in the largest batch that is sampled, in a round or in an evaluation."""
    shard, sampling, evaluation = config.sampling.prompts_per_shard, config.sampling, config.evaluation
    return max(
        min(shard, sampling.prompts_per_round) * sampling.images_per_prompt, min(shard, evaluation.prompts) * evaluation.images_per_prompt
    )


def _trained_in_a_call(config: RunConfig, steps: int) -> int:
    """Images times timesteps in the largest network call of an update, as the trainer splits it."""
    training, per_prompt = config.training, config.sampling.images_per_prompt
    images = per_prompt * max(
        1, min(training.prompts_per_update, config.sampling.prompts_per_round, training.micro_batch_size // per_prompt)
    )
    return images * min(steps, max(1, training.micro_batch_size // images))
