"""What a run's work costs on this machine: one denoising step, one decoding and one training step, each of the size that the run will do."""

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
"""Numbers that AdamW keeps of each trained weight."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measured costs. A row is one image at one denoising step in the network, doubled by guidance."""

    sampling_seconds: float
    """Of a row, forward only."""
    training_seconds: float
    """Of a row, forward and backward."""
    decoding_seconds: float
    """Of a picture."""
    peak_bytes: int
    """The most memory that was held at once: of the process on a CPU, of torch's allocator on a GPU."""


def probe(session: Session, *, prompts: int, sampled: int, trained: int) -> Probe:
    """Encode `prompts` prompts, denoise and decode `sampled` images in one call each, and train on `trained` images in one call.

    Weights of the size of the optimizer's state, and of averaged weights where the run keeps them, are held meanwhile: later rounds sample with them.
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
    """The most memory that this process has held so far; on a GPU, what torch has held there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage would count the parent's peak from before exec too
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _seconds(work: Callable[[], object]) -> float:
    """Of the second of two calls; the first one allocates and warms up."""
    work()
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
