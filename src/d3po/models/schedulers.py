"""Samplers made from the configurations of diffusers' schedulers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from d3po.diffusion.ancestral import EulerAncestral
from d3po.diffusion.flow import FlowSDE, flow_grid
from d3po.diffusion.parameterization import CleanSample, Epsilon, Parameterization, Velocity
from d3po.diffusion.schedule import NoiseSchedule, StepGrid, chained_grid, step_grid
from d3po.diffusion.transition import DDIM
from d3po.errors import ConfigError, ModelError
from d3po.models.base import Sampler, SamplerSettings
from d3po.options import Spacing

PARAMETERIZATIONS: dict[str, Parameterization] = {"epsilon": Epsilon(), "v_prediction": Velocity(), "sample": CleanSample()}
"""The parameterizations by diffusers' names (`prediction_type`)."""


@dataclass(frozen=True, kw_only=True)
class SchedulerFacts:
    """The schedule of a discrete-time model, read once from its scheduler's configuration."""

    schedule: NoiseSchedule
    parameterization: Parameterization
    spacing: Spacing
    steps_offset: int
    chained: bool
    """Whether each step ends at the timestep where the next one begins. DDIMScheduler subtracts a whole stride instead, whatever the next timestep is."""
    clip_range: float | None
    threshold_ratio: float | None
    threshold_max: float

    @property
    def num_train_timesteps(self) -> int:
        return len(self.schedule.alphas_cumprod)


def read_scheduler(scheduler: Any) -> SchedulerFacts:
    """Read the schedule of a discrete-time scheduler of any class in diffusers; the scheduler's sampling method is not used.

    Raises:
        ModelError: the scheduler is not a discrete-time one, or of an unknown prediction type.
    """
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if not hasattr(scheduler, "alphas_cumprod") or prediction not in PARAMETERIZATIONS:
        raise ModelError(
            f"the model's scheduler is {type(scheduler).__name__} with {prediction!r} prediction, but d3po samples this family by a discrete-time "
            f"schedule (alphas_cumprod) and the predictions {', '.join(PARAMETERIZATIONS)}; use a model that was trained with those"
        )
    alphas = scheduler.alphas_cumprod.float()
    if config.get("rescale_betas_zero_snr", False):
        alphas = torch.cat([alphas[:-1], alphas.new_zeros(1)])  # some schedulers keep 2**-24 there
    bounded, thresholded = config.get("clip_sample", False), config.get("thresholding", False)
    return SchedulerFacts(
        schedule=NoiseSchedule(
            alphas_cumprod=alphas,
            final_alpha_cumprod=1.0 if config.get("set_alpha_to_one", True) else float(alphas[0]),
        ),
        parameterization=PARAMETERIZATIONS[prediction],
        spacing=config.get("timestep_spacing", "leading"),
        steps_offset=config.get("steps_offset", 0),
        chained=not isinstance(scheduler, DDIMScheduler),
        clip_range=config.get("clip_sample_range", 1.0) if bounded and not thresholded else None,
        threshold_ratio=config.get("dynamic_thresholding_ratio", 0.995) if thresholded else None,
        threshold_max=config.get("sample_max_value", 1.0),
    )


def discrete_sampler(facts: SchedulerFacts, settings: SamplerSettings) -> Sampler:
    """Make a DDIM or ancestral Euler sampler on a discrete-time model's schedule.

    Raises:
        ConfigError: the settings ask for a flow's step, for more steps than timesteps, or for a first step that the model cannot take.
    """
    if settings.kind == "flow_sde":
        raise ConfigError("sampling.sampler is 'flow_sde', but this is no flow model; choose 'ddim', 'euler_ancestral' or 'model'")
    if settings.steps > facts.num_train_timesteps:
        raise ConfigError(
            f"sampling.steps is {settings.steps}, more than the {facts.num_train_timesteps} timesteps the model was trained on; lower it"
        )
    schedule = _zero_terminal(facts.schedule) if settings.zero_terminal_snr else facts.schedule
    grid = step_grid(
        facts.num_train_timesteps,
        settings.steps,
        spacing=settings.spacing or facts.spacing,
        steps_offset=facts.steps_offset,
        clamp_previous=settings.last_step == "clamped",
    )
    if float(schedule.alpha_bar(grid.timesteps[:1])) == 0 and facts.parameterization.needs_signal:
        raise ConfigError(
            "the schedule's last timestep is noise alone (zero terminal SNR), from which a model that predicts the noise learns no picture; "
            "set sampling.zero_terminal_snr = false, or, if the model's scheduler itself has it so, sampling.spacing = 'leading', which begins "
            "below that timestep; or use a model of v prediction"
        )
    if settings.kind == "euler_ancestral":
        euler = EulerAncestral(schedule=schedule, parameterization=facts.parameterization, eta=settings.eta)
        return Sampler(transition=euler, grid=_euler_grid(facts, settings, grid))
    ddim = DDIM(
        schedule=schedule,
        parameterization=facts.parameterization,
        eta=settings.eta,
        clip_range=facts.clip_range,
        threshold_ratio=facts.threshold_ratio,
        threshold_max=facts.threshold_max,
    )
    return Sampler(transition=ddim, grid=_chained(grid.timesteps, settings) if facts.chained else grid)


def flow_sampler(scheduler: Any, settings: SamplerSettings, *, sigmas: list[float] | None, tokens: int) -> Sampler:
    """Make the SDE sampler of a flow model, at the noise levels that its scheduler computes.

    Args:
        scheduler: the pipeline's scheduler, which applies its shift, or its mu for a picture of `tokens` tokens.
        settings: the run's settings.
        sigmas: the noise levels before the shift, if the model's pipeline sets them; with None the scheduler computes them.
        tokens: length of the picture's token sequence in the transformer.

    Raises:
        ConfigError: the settings ask for a discrete-time step.
        ModelError: the scheduler is not that of a flow model.
    """
    if settings.kind in ("ddim", "euler_ancestral"):
        raise ConfigError(f"sampling.sampler is {settings.kind!r}, but this is a flow model; choose 'flow_sde' or 'model'")
    if settings.zero_terminal_snr:
        raise ConfigError("sampling.zero_terminal_snr is true, but a flow model always begins at pure noise; set it to false")
    levels = _noise_levels(scheduler, settings.steps, sigmas, tokens)
    flow = FlowSDE(noise_level=settings.noise_level, ceiling=_ceiling(levels), noisy_end=settings.last_step == "clamped")
    return Sampler(transition=flow, grid=flow_grid(levels))


def _noise_levels(scheduler: Any, steps: int, sigmas: list[float] | None, tokens: int) -> torch.Tensor:
    """The noise levels of the model's scheduler, falling to 0. Higher-order solvers visit the same levels as Euler's method."""
    config, mu = scheduler.config, None
    if config.get("use_dynamic_shifting", False):
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
        mu = config.get("base_shift", 0.5) + slope * (tokens - low)
    if config.get("use_flow_sigmas", False):
        # UniPC, DPM-Solver and similar schedulers, whose shift is flow_shift; pipelines let them compute the levels
        fresh: Any = type(scheduler).from_config(config)
        fresh.set_timesteps(steps, **({} if mu is None else {"mu": mu}))
        return torch.cat([fresh.sigmas[:-1].float(), torch.zeros(1)])  # some repeat their last level instead of ending at 0
    if type(scheduler).__name__.startswith("FlowMatch"):
        fresh = FlowMatchEulerDiscreteScheduler.from_config(config)
        fresh.set_timesteps(None if sigmas else steps, sigmas=sigmas, mu=mu)
        return fresh.sigmas.float()
    raise ModelError(
        f"the model's scheduler is {type(scheduler).__name__}, but d3po samples this family by a flow's noise levels; use a model whose scheduler "
        "is of flow matching, or says use_flow_sigmas"
    )


def _ceiling(levels: torch.Tensor) -> float:
    """The noise level after the first step; if there is only one step, half of the first level."""
    return float(levels[1]) if float(levels[1]) > 0 else float(levels[0]) / 2


def _euler_grid(facts: SchedulerFacts, settings: SamplerSettings, whole: StepGrid) -> StepGrid:
    timesteps = whole.timesteps.float()
    if (settings.spacing or facts.spacing) == "linspace":
        timesteps = torch.from_numpy(np.linspace(0, facts.num_train_timesteps - 1, settings.steps, dtype=np.float32)[::-1].copy())
    return _chained(timesteps, settings)


def _chained(timesteps: torch.Tensor, settings: SamplerSettings) -> StepGrid:
    clamped = settings.last_step == "clamped" and float(timesteps[-1]) > 0
    return chained_grid(timesteps, end=0.0 if clamped else -1.0)


def _zero_terminal(schedule: NoiseSchedule) -> NoiseSchedule:
    """Shift and scale sqrt(alpha_bar) so that it ends at 0 and keeps its first value (Lin et al. 2024, arXiv 2305.08891, algorithm 1)."""
    roots = schedule.alphas_cumprod.sqrt()
    rescaled = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return NoiseSchedule(alphas_cumprod=rescaled, final_alpha_cumprod=schedule.final_alpha_cumprod)
