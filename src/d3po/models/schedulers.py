"""Samplers from what diffusers' scheduler configurations say."""

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
"""What diffusers' `prediction_type` names."""


@dataclass(frozen=True, kw_only=True)
class SchedulerFacts:
    """What a discrete-time model was trained with, read once from its scheduler's configuration."""

    schedule: NoiseSchedule
    parameterization: Parameterization
    spacing: Spacing
    steps_offset: int
    chained: bool
    """Whether each step ends where the next begins; DDIMScheduler goes down by whole strides instead, wherever the next timestep is."""
    clip_range: float | None
    threshold_ratio: float | None
    threshold_max: float

    @property
    def num_train_timesteps(self) -> int:
        return len(self.schedule.alphas_cumprod)


def read_scheduler(scheduler: Any) -> SchedulerFacts:
    """The facts of a diffusers discrete-time scheduler of any class; its own sampling method is not used.

    Raises:
        ModelError: it is of another kind.
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
    """DDIM or ancestral Euler on a discrete-time model's schedule.

    Raises:
        ConfigError: another kind of step, more steps than timesteps, or a schedule whose first step the model cannot take.
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
            "set sampling.zero_terminal_snr = false, or, where the model's own scheduler has it so, sampling.spacing = 'leading', which begins "
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
    """The SDE steps of a flow model, at the noise levels that its scheduler computes.

    Args:
        scheduler: the pipeline's; its shift, or its mu for `tokens` places in the picture, is applied by itself.
        settings: the run's.
        sigmas: the levels before they are shifted, where the model's pipeline gives them; None leaves them to the scheduler.
        tokens: length of the picture's sequence in the transformer.

    Raises:
        ConfigError: a discrete-time step was asked for.
        ModelError: the scheduler is none of a flow.
    """
    if settings.kind in ("ddim", "euler_ancestral"):
        raise ConfigError(f"sampling.sampler is {settings.kind!r}, but this is a flow model; choose 'flow_sde' or 'model'")
    if settings.zero_terminal_snr:
        raise ConfigError("sampling.zero_terminal_snr is true, but a flow model begins at noise alone anyhow; set it to false")
    levels = _noise_levels(scheduler, settings.steps, sigmas, tokens)
    flow = FlowSDE(noise_level=settings.noise_level, ceiling=_ceiling(levels), noisy_end=settings.last_step == "clamped")
    return Sampler(transition=flow, grid=flow_grid(levels))


def _noise_levels(scheduler: Any, steps: int, sigmas: list[float] | None, tokens: int) -> torch.Tensor:
    """From noise to picture, as the model's own scheduler spreads them; higher-order solvers visit the same levels as Euler's method."""
    config, mu = scheduler.config, None
    if config.get("use_dynamic_shifting", False):
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
        mu = config.get("base_shift", 0.5) + slope * (tokens - low)
    if config.get(
        "use_flow_sigmas", False
    ):  # UniPC, DPM-Solver and the like, whose shift is flow_shift; pipelines leave the levels to them
        own: Any = type(scheduler).from_config(config)
        own.set_timesteps(steps, **({} if mu is None else {"mu": mu}))
        return torch.cat([own.sigmas[:-1].float(), torch.zeros(1)])  # some repeat their last level, where a rollout goes on to the picture
    if type(scheduler).__name__.startswith("FlowMatch"):
        own = FlowMatchEulerDiscreteScheduler.from_config(config)
        own.set_timesteps(None if sigmas else steps, sigmas=sigmas, mu=mu)
        return own.sigmas.float()
    raise ModelError(
        f"the model's scheduler is {type(scheduler).__name__}, but d3po samples this family by a flow's noise levels; use a model whose scheduler "
        "is of flow matching, or says use_flow_sigmas"
    )


def _ceiling(levels: torch.Tensor) -> float:
    """The level after the first step; of a single step, half of it."""
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
    """Shift and scale sqrt(alpha_bar) so that it ends at 0 and begins where it did (Lin et al. 2024, arXiv 2305.08891, algorithm 1)."""
    roots = schedule.alphas_cumprod.sqrt()
    rescaled = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return NoiseSchedule(alphas_cumprod=rescaled, final_alpha_cumprod=schedule.final_alpha_cumprod)
