"""Measures one denoising step, one decoding and one training step on this machine, each with the batch size that the run will use."""

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from d3po.models.replay import Replay
from d3po.run.session import Session

MOMENTS = 2
"""Numbers that AdamW keeps for each trained weight."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measured costs. For forward passes see `d3po.run.cost.counting`."""

    sampling_seconds: float
    """Seconds for one forward pass without a gradient."""
    training_seconds: float
    """Seconds for one forward and backward pass."""
    decoding_seconds: float
    """Seconds for decoding one picture."""
    peak_bytes: int
    """Peak memory: of the process on a CPU, of torch's allocator on a GPU."""


def probe(session: Session, *, prompts: int, sampled: int, trained: int) -> Probe:
    """Encode `prompts` prompts, denoise and decode `sampled` images in one call each, and train on `trained` images in one call.

    Tensors of the size of the optimizer's state, and of the averaged weights if the run keeps them, are allocated meanwhile, as in later rounds.
    """
    policy = session.policy
    copies = MOMENTS + (1 if session.run.config.training.policy_ema else 0)
    held = [torch.ones_like(weight) for weight in policy.trainable().values() for _ in range(copies)]
    latent_shape = largest_shape(session)
    condition = policy.encode_prompts([f"prompt {number}" for number in range(prompts)])

    def guided(replay: Replay) -> int:
        return 1 if replay.guidance == 1 else policy.guided_forwards

    def predicted(images: int, replay: Replay) -> torch.Tensor:
        x = torch.zeros(images, *latent_shape, device=policy.device)
        timesteps = replay.grid.timesteps[:1].expand(images).to(policy.device)
        return replay.predict(policy, x, timesteps, condition.select(torch.arange(images) % prompts))

    with torch.no_grad():
        sampling = _seconds(lambda: predicted(sampled, session.replay))
        latents = torch.zeros(sampled, *latent_shape, device=policy.device)
        decoding = _seconds(lambda: policy.decode(latents))
    training = _seconds(lambda: predicted(trained, session.trainer.replay).sum().backward())
    policy.network.zero_grad()
    del held
    return Probe(
        sampling_seconds=sampling / (sampled * guided(session.replay)),
        training_seconds=training / (trained * guided(session.trainer.replay)),
        decoding_seconds=decoding / sampled,
        peak_bytes=peak_bytes(),
    )


def largest_shape(session: Session) -> tuple[int, ...]:
    """The shape of the largest latents that the run samples."""
    return max([session.policy.latent_shape, *session.replay.samplers], key=math.prod)


def peak_bytes() -> int:
    """Peak memory of this process so far in bytes; on a GPU, of torch's allocator."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage would include the parent's peak from before exec
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _seconds(work: Callable[[], object]) -> float:
    """Time the second of two calls, in seconds. The first one allocates memory and warms up."""
    work()
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
