"""Noise schedules, Gaussian reverse steps with log-probs, and rollouts: pure maths on tensors, without I/O or diffusers.

Shapes: B images, T denoising steps, `*latent` the shape of one latent (C, H, W for pictures).
"""

from d3po.diffusion.ancestral import EulerAncestral
from d3po.diffusion.divergence import kl_of_steps
from d3po.diffusion.flow import FlowSDE, flow_grid
from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.diffusion.parameterization import CleanSample, Epsilon, Parameterization, Velocity
from d3po.diffusion.rollout import RolloutStep, rollout
from d3po.diffusion.schedule import NoiseSchedule, StepGrid, step_grid
from d3po.diffusion.transition import DDIM, GaussianStep, ReverseStep, Transition

__all__ = [
    "DDIM",
    "CleanSample",
    "Epsilon",
    "EulerAncestral",
    "FlowSDE",
    "GaussianStep",
    "NoiseSchedule",
    "NoiseStreams",
    "Parameterization",
    "ReverseStep",
    "RolloutStep",
    "StepGrid",
    "Transition",
    "Velocity",
    "flow_grid",
    "kl_of_steps",
    "rollout",
    "seeded",
    "step_grid",
]
