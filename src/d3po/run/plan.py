"""What a run will cost, before it is run: counts from the settings, time and memory from one measured step."""

import math
import resource
import sys
import time
from dataclasses import dataclass

import torch

from d3po.run.prompts import prompts_of_round
from d3po.run.workbench import Workbench
from d3po.training.trainer import trainable_steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of a whole run. A row is one image at one denoising step in the network, doubled by guidance."""

    rounds: int
    images_per_round: int
    pairs_per_round: int
    updates_per_round: int
    sampling_rows: int
    training_rows: int
    evaluation_rows: int
    stored_bytes: int
    seconds: float
    peak_bytes: int

    def lines(self) -> list[str]:
        """The plan in words."""
        return [
            f"rounds               {self.rounds}",
            f"images               {self.images_per_round} a round, {self.rounds * self.images_per_round} in all",
            f"pairs                {self.pairs_per_round} a round, {self.rounds * self.pairs_per_round} in all",
            f"updates              {self.updates_per_round} a round, {self.rounds * self.updates_per_round} in all",
            f"network rows         {self.sampling_rows:,} sampling, {self.training_rows:,} training, {self.evaluation_rows:,} evaluating",
            f"disk                 {self.stored_bytes / 1e6:,.0f} MB of latents",
            f"memory               {self.peak_bytes / 1e6:,.0f} MB at the peak of a measured training step",
            f"time                 {self.seconds / 60:.1f} min, from a measured step on this machine",
        ]


def plan_run(bench: Workbench) -> Plan:
    """Count the work of the whole run and measure one sampling and one training step."""
    config, policy = bench.config, bench.policy
    sampling, training = config.sampling, config.training
    prompts_of_round(bench.folder.prompts(), sampling.prompts_per_round, seed=config.seed, round=0)
    per_prompt, steps = sampling.images_per_prompt, len(bench.replay.grid)
    images = sampling.prompts_per_round * per_prompt
    every = math.comb(per_prompt, 2)
    pairs = min(config.feedback.pairs_per_prompt or every, every)
    updates = training.epochs * math.ceil(sampling.prompts_per_round / training.prompts_per_update)
    trained_steps = math.ceil(training.timestep_fraction * len(trainable_steps(bench.replay, training.timestep_range)))
    guided = 1 if sampling.guidance == 1 else policy.guided_rows
    evaluations = 1 + (config.rounds if config.evaluation.every_round else 1)
    rows = {
        "sampling": config.rounds * images * steps * guided,
        "training": config.rounds * training.epochs * images * trained_steps * guided,
        "evaluation": evaluations * config.evaluation.prompts * config.evaluation.images_per_prompt * steps * guided,
    }
    if config.objective.reference != "per_round":
        rows["sampling"] += (config.rounds - 1) * images * steps * guided
    forward, both = _seconds_per_row(bench, rows=min(training.max_rows, images), guided=guided)
    latent_bytes = math.prod(policy.latent_shape) * (4 if sampling.stored == "float32" else 2)
    return Plan(
        rounds=config.rounds,
        images_per_round=images,
        pairs_per_round=sampling.prompts_per_round * pairs,
        updates_per_round=updates,
        sampling_rows=rows["sampling"],
        training_rows=rows["training"],
        evaluation_rows=rows["evaluation"],
        stored_bytes=config.rounds * images * (steps + 1) * latent_bytes,
        seconds=forward * (rows["sampling"] + rows["evaluation"]) + both * rows["training"],
        peak_bytes=_peak_bytes(),
    )


def _seconds_per_row(bench: Workbench, *, rows: int, guided: int) -> tuple[float, float]:
    policy = bench.policy
    x = torch.zeros(rows, *policy.latent_shape, device=policy.device)
    timesteps = bench.replay.grid.timesteps[:1].expand(rows).to(policy.device)
    condition = policy.encode_prompts([""]).rows(torch.zeros(rows, dtype=torch.long))

    def forward() -> torch.Tensor:
        return bench.replay.predict(policy, x, timesteps, condition)

    with torch.no_grad():
        forward()
        started = time.perf_counter()
        forward()
        without = time.perf_counter() - started
    forward().sum().backward()
    started = time.perf_counter()
    forward().sum().backward()
    both = time.perf_counter() - started
    policy.network.zero_grad()
    return without / (rows * guided), both / (rows * guided)


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
