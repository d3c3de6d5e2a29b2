"""`python -m benchmarks.decided` measures in which denoising step each taste is decided, and which pictures tell what a step did.

Pictures of one prompt share all noise but that of one step. Then whatever differs between the finished pictures comes from that step, and the variance of a
taste over them is what the step decides. Two other ways to judge the step are held against it, by the correlation of the taste over the same pictures: the
picture that the network expects right after the step, and the finished picture whose later noise is its own, which is what `sampling.branch_noise = "onward"`
shows.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.measuring import markdown
from benchmarks.tastes import TASTES
from d3po.diffusion.noise import NoiseStreams
from d3po.embedded import EMBEDDED
from d3po.models.base import AbstractPolicy, Condition, Sampler, SamplerSettings
from d3po.models.load import load_policy
from d3po.run.sample.phase import to_uint8

Scores = Float[NDArray[np.float64], "P K"]


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What one step decides of one taste, of pictures that differ in that step's noise alone."""

    taste: str
    step: int
    variance: float
    """The taste's variance over the pictures of a prompt, averaged over prompts."""
    expected: float
    """Correlation with the taste of the pictures that the network expects right after the step, averaged over prompts."""
    onward: float
    """Correlation with the taste of finished pictures whose later noise is their own, averaged over prompts."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A policy, prompts, and how many pictures of each prompt differ in a step."""

    policy: AbstractPolicy
    sampler: Sampler
    prompts: Sequence[str]
    condition: Condition
    """Of K rows a prompt."""
    count: int
    """K, the pictures of each prompt."""
    guidance: float
    seed: int

    def noise(self, name: str, *, shared: bool) -> list[Tensor]:
        """The noise of all steps, each (P * K, *latent); one for all pictures of a prompt if `shared`."""
        who = [(self.seed, name, prompt, 0 if shared else number) for prompt in self.prompts for number in range(self.count)]
        streams = NoiseStreams(who)
        return [streams.draw(tuple(self.policy.latent_shape)) for _ in range(len(self.sampler.grid))]

    @torch.no_grad()
    def step(self, x: Tensor, noise: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Take the step at a position of the grid: the next latents, and the finished latents that the network expects before it."""
        grid, transition = self.sampler.grid, self.sampler.transition
        t, previous = (timesteps[position].expand(len(x)) for timesteps in (grid.timesteps, grid.previous))
        step = transition.step(self.policy.predict(x, t, self.condition, self.guidance), x, t, previous)
        return step.draw(noise) if bool(transition.stochastic(grid)[position]) else step.mean, step.expected

    def finished(self, x: Tensor, noise: Sequence[Tensor], first: int) -> Tensor:
        """Take all steps from the position `first` on."""
        for position in range(first, len(self.sampler.grid)):
            x, _ = self.step(x, noise[position], position)
        return x

    @torch.no_grad()
    def scores(self, latents: Tensor) -> dict[str, Scores]:
        """What each taste makes of the decoded pictures."""
        pictures = [Image.fromarray(pixels) for pixels in to_uint8(self.policy.decode(latents))]
        prompts = [prompt for prompt in self.prompts for _ in range(self.count)]
        return {
            name: np.array([taste(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]).reshape(-1, self.count)
            for name, taste in TASTES.items()
        }


def measure(bench: Bench, steps: Sequence[int]) -> list[Decided]:
    """Measure these steps, by their positions in the grid."""
    states, shared = bench.noise("start", shared=True)[:1], bench.noise("step", shared=True)
    own, later = bench.noise("own", shared=False), bench.noise("later", shared=False)
    for position in range(max(steps)):
        states.append(bench.step(states[-1], shared[position], position)[0])
    found: list[Decided] = []
    for step in track(steps, "steps", console=Console(stderr=True)):
        after, _ = bench.step(states[step], own[step], step)
        last = step + 1 == len(shared)
        once = bench.scores(bench.finished(after, shared, step + 1))
        onward = bench.scores(bench.finished(after, later, step + 1))
        expected = bench.scores(after if last else bench.step(after, shared[step + 1], step + 1)[1])
        found += [
            Decided(
                taste=taste,
                step=step,
                variance=float(scores.var(axis=1, ddof=1).mean()),
                expected=correlation(scores, expected[taste]),
                onward=correlation(scores, onward[taste]),
            )
            for taste, scores in once.items()
        ]
    return found


def correlation(one: Scores, other: Scores) -> float:
    """The correlation within each prompt, averaged over the prompts; 0 for a prompt whose pictures are alike."""
    one, other = (scores - scores.mean(axis=1, keepdims=True) for scores in (one, other))
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return float(((one * other).sum(axis=1) / np.where(scale > 0, scale, 1.0)).mean())


def table(found: Sequence[Decided]) -> list[list[str]]:
    """A row for each taste: in percent, the share of each step in the variances' sum; then both correlations, each step weighted by its variance."""
    steps = sorted({each.step for each in found})
    rows = [["taste", *(f"step {step + 1}" for step in steps), "expected", "onward"]]
    for taste in dict.fromkeys(each.taste for each in found):
        mine = sorted((each for each in found if each.taste == taste), key=lambda each: each.step)
        total = sum(each.variance for each in mine)
        means = [sum(each.variance * value for each, value in zip(mine, values, strict=True)) / total for values in
                 ([each.expected for each in mine], [each.onward for each in mine])]  # fmt: skip
        rows.append([taste, *(f"{100 * each.variance / total:.0f}" for each in mine), *(f"{mean:.2f}" for mean in means)])
    return rows


def bench_of(model: str, *, prompts: int, pictures: int, steps: int, seed: int) -> Bench:
    """The bench of an embedded model, with prompts spread over those it is trained on."""
    policy = load_policy(model, lora=None, seed=0)
    lines = EMBEDDED[model].prompts.read_text(encoding="utf-8").splitlines()
    chosen = [lines[len(lines) * number // prompts] for number in range(prompts)]
    return Bench(
        policy=policy,
        sampler=policy.sampler(SamplerSettings(steps=steps, kind="model", eta=1.0)),
        prompts=chosen,
        condition=policy.encode_prompts(chosen).select(torch.arange(prompts).repeat_interleave(pictures)),
        count=pictures,
        guidance=3.0,
        seed=seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decided", description="Measure in which step each taste is decided.")
    parser.add_argument("--model", choices=EMBEDDED, default="emoji-32", help="an embedded model (default: emoji-32)")
    parser.add_argument("--prompts", type=int, default=16, help="prompts (default: 16)")
    parser.add_argument("--pictures", type=int, default=6, help="pictures of each prompt that differ in one step (default: 6)")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    bench = bench_of(chosen.model, prompts=chosen.prompts, pictures=chosen.pictures, steps=chosen.steps, seed=chosen.seed)
    found = measure(bench, range(chosen.steps))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    print(markdown(table(found)))


if __name__ == "__main__":
    main()
