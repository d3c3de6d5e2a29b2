"""The cost of sampling: time of a prompt's images together and one by one, memory by number of steps, and bytes on disk."""

import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measuring import Figure, Measure, interleaved, opened_run, ratio_figure
from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.rollout import rollout
from d3po.diffusion.schedule import NoiseSchedule
from d3po.models.base import AbstractPolicy, Condition, Sampler, SamplerSettings
from d3po.models.schedulers import SchedulerFacts, discrete_sampler
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session

STEPS = 5
SETTINGS = {
    "sampling.steps": str(STEPS),
    "sampling.guidance": "3.0",
    "sampling.images_per_prompt": "4",
    "sampling.prompts_per_round": "1",
    "adapter.rank": "8",
    "adapter.alpha": "8.0",
    "adapter.targets": "attention+conv",
}
TOGETHER = (4, 7)
"""Numbers of images of a prompt that are measured."""
FEW, MANY = 10, 50
"""Denoising steps whose peak memory is compared."""
SUBJECTS = {
    "large": "no network, 64 latents of 4x64x64, 4 MiB a step",
    "emoji": "the embedded model, 4 latents of 8x8x8, 8 KiB a step",
}


def figures() -> dict[str, Measure]:
    return {"batch": batch, "memory.large": partial(memory, "large"), "memory.emoji": partial(memory, "emoji"), "storage": storage}


def batch(repeats: int, model: str) -> list[Figure]:
    """Time of K images of a prompt in one batched call a step, over that of one image at a time with the prompt encoded for each."""
    with opened_run(SETTINGS, model) as session:
        return [_batch(session, count, repeats) for count in TOGETHER]


def memory(subject: str, repeats: int, model: str) -> list[Figure]:
    """Peak memory of a sampling process with many steps over that of one with few."""
    peaks = [(peak_of_child(subject, MANY, model), peak_of_child(subject, FEW, model)) for _ in range(repeats)]
    many, few = [first for first, _ in peaks], [second for _, second in peaks]
    what = f"peak memory, T={MANY} / T={FEW}: {SUBJECTS[subject]}"
    return [ratio_figure(f"rollout_cost.memory.{subject}", what, many, few, target=1.05, labels=(f"T={MANY}", f"T={FEW}"), unit="MiB")]


def storage(repeats: int, model: str) -> list[Figure]:  # noqa: ARG001
    """Bytes of a shard over those of its K (T+1) latents, counted once. Small latents are their own sketches, so a shard stores them about twice."""
    return [_storage(subject, model, target) for subject, target in (("large", 1.05), ("emoji", 2.0))]


def draw(session: Session, prompt: str, images: Sequence[int]) -> Tensor:
    """The final latents of some images of a prompt, in one batched call a step."""
    policy, replay = session.policy, session.replay
    condition = policy.encode_prompts([prompt]).select(torch.zeros(len(images), dtype=torch.long))
    latents = torch.stack([torch.randn(policy.latent_shape, generator=seeded("start", prompt, image)) for image in images])
    noise = NoiseStreams([("step", prompt, image) for image in images])
    steps = rollout(
        lambda x_t, timesteps: policy.predict(x_t, timesteps, condition, replay.guidance),
        replay.transition,
        replay.grid,
        latents,
        noise.draw,
        reduce=replay.reduce,
    )
    for step in steps:
        latents = step.latents
    return latents


def peak_of_child(subject: str, steps: int, model: str) -> float:
    """Peak resident MiB of a process that samples a shard."""
    command = [sys.executable, "-m", "benchmarks.rollout_cost", subject, str(steps), model]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout)


class Still(AbstractPolicy):
    """A policy without a network and with latents of Stable Diffusion's size, so that latents dominate the memory."""

    facts = SchedulerFacts(
        schedule=NoiseSchedule(alphas_cumprod=torch.linspace(0.999, 0.001, 1000), final_alpha_cumprod=1.0),
        parameterization=Epsilon(),
        spacing="trailing",
        steps_offset=0,
        chained=True,
        clip_range=None,
        threshold_ratio=None,
        threshold_max=1.0,
    )
    latent_shape = (4, 64, 64)

    def __init__(self) -> None:
        self._network = nn.Linear(1, 1)

    @property
    def network(self) -> nn.Module:
        return self._network

    def encode_prompts(self, prompts: Sequence[str]) -> "Still":  # noqa: ARG002
        return self

    def select(self, indices: Tensor) -> "Still":  # noqa: ARG002
        return self

    def sampler(self, settings: SamplerSettings) -> Sampler:
        return discrete_sampler(self.facts, settings)

    def predict(self, x_t: Tensor, timesteps: Tensor, condition: Condition, guidance: float | Tensor) -> Tensor:  # noqa: ARG002
        return 0.1 * x_t

    def decode(self, latents: Tensor) -> Tensor:
        return torch.zeros(len(latents), 3, 8, 8)

    def encode(self, pictures: Tensor) -> Tensor:
        raise NotImplementedError

    def without_adapter(self) -> AbstractContextManager[None]:
        return nullcontext()

    def trainable(self) -> dict[str, nn.Parameter]:
        return {}

    def export(self, directory: Path) -> list[Path]:
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        raise NotImplementedError


def _batch(session: Session, count: int, repeats: int) -> Figure:
    prompt = session.run.folder.prompts()[0]
    difference = (draw(session, prompt, range(count)) - torch.cat([draw(session, prompt, [i]) for i in range(count)])).abs().max()
    if not difference < 1e-2:
        raise RuntimeError(f"batched and single images differ by up to {difference:.2g}")
    together, alone = interleaved(
        lambda: draw(session, prompt, range(count)),
        lambda: [draw(session, prompt, [i]) for i in range(count)],
        repeats,
    )
    what = f"time to sample K={count} images of a prompt together / one by one, T={STEPS}"
    return ratio_figure(f"rollout_cost.batch.k{count}", what, together, alone, target=0.60, labels=("together", "one by one"))


@contextmanager
def sampled(subject: str, steps: int, model: str) -> Generator[Session, None, None]:
    """Open a run and sample its first round."""
    settings = SETTINGS | {"sampling.steps": str(steps)}
    if subject == "large":
        settings |= {"sampling.prompts_per_round": "16", "sampling.prompts_per_shard": "16"}
    with opened_run(settings, model) as session:
        if subject == "large":
            session.policy = Still()
        sample_round(session, 0)
        yield session


def _storage(subject: str, model: str, target: float) -> Figure:
    with sampled(subject, STEPS, model) as session:
        stored = session.run.folder.shard(0, 0).stat().st_size
        latents = len(session.run.store.pictures.images(0)) * (STEPS + 1) * torch.Size(session.policy.latent_shape).numel() * 4
    what = f"bytes of a shard / bytes of its K(T+1) latents, T={STEPS}: {SUBJECTS[subject]}"
    return ratio_figure(
        f"rollout_cost.storage.{subject}", what, [stored], [latents], target=target, labels=("shard", "latents"), unit="bytes"
    )


def peak() -> float:
    """Peak resident MiB of this process. On Linux it is read from /proc, since getrusage also counts the parent's memory from before exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 2**20 if sys.platform == "darwin" else largest / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    with sampled(sys.argv[1], int(sys.argv[2]), sys.argv[3]):
        print(peak())
