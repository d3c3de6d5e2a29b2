"""The sampling phase: a round's rollouts, and evaluation pictures."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from d3po.artifacts.files import sha256, write_atomically
from d3po.artifacts.shards import writing_shard
from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.diffusion.rollout import RolloutStep, rollout
from d3po.errors import CorruptFileError, NonFiniteError
from d3po.run.prompts import prompts_of_round
from d3po.run.sample.branching import BranchingStreams, branch_of, judged_at
from d3po.run.sample.buckets import bucket_of, cut_into_shards
from d3po.run.workbench import BASE, Workbench
from d3po.store import NewPicture


def sample_round(bench: Workbench, round: int, *, repair: bool = False) -> None:
    """Sample the round's images and record them; what exists is kept, and with `repair` checked and made again where damaged or gone.

    Raises:
        ModelError: the model gives values that are not finite; no picture is made of them.
        NonFiniteError: the same of a trained policy, in any process.
    """
    shards = _shards_of(bench, round)
    done = {record.number: record for record in bench.store.pictures.shards(round)}
    missing = [number for number in range(len(shards)) if number not in done]
    damaged = _damaged(bench, round) if repair else []
    if not missing and not damaged:
        return
    bench.load_round_weights(round)
    todo, distributed = sorted([*missing, *damaged]), bench.distributed
    with bench.narrator.bar(f"round {round}: sampling", total=-(-len(todo) // distributed.size) * len(bench.replay.grid)) as bar:
        for start in range(0, len(todo), distributed.size):
            mine = distributed.share(todo[start : start + distributed.size])
            made: dict[int, str] | NonFiniteError
            try:
                made = {number: _sample_shard(bench, round, number, shards[number], on_step=lambda: bar.advance()) for number in mine}
            except NonFiniteError as error:
                made = error
            checksums: dict[int, str] = {}
            for theirs in distributed.gather(made):
                if isinstance(theirs, NonFiniteError):
                    raise theirs
                checksums |= theirs
            distributed.lead(
                partial(_take_down, bench, round, shards, checksums, {number: record.checksum for number, record in done.items()})
            )


def _take_down(
    bench: Workbench, round: int, shards: Sequence[Sequence[str]], checksums: Mapping[int, str], recorded: Mapping[int, str]
) -> None:
    """Record shards that were made; those that were made again must be what they were."""
    for number, checksum in checksums.items():
        if checksum != recorded.get(number, checksum):
            raise CorruptFileError(
                f"shard {number} of round {round} was made again but differs from the recorded one (other torch version or machine?); "
                "start a new run folder"
            )
        if number not in recorded:
            _record(bench, round, number, shards[number], checksum)
    bench.folder.remember(bench.store)


def is_sampled(bench: Workbench, round: int) -> bool:
    """Whether all of the round's shards are there."""
    return len(bench.store.pictures.shards(round)) == len(_shards_of(bench, round))


def sample_pictures(bench: Workbench, prompts: Sequence[str], per_prompt: int, *, stream: str, title: str) -> NDArray[np.uint8]:
    """Pictures of the policy as it stands, of the run's own size: (P, n, height, width, 3).

    Image i of a prompt has noise of its own, x_T included, that depends on the seed, `stream`, the prompt and i alone: two
    policies sampled from one stream give pictures that can be looked at side by side.
    """
    seed, chunk = bench.config.seed, bench.config.sampling.prompts_per_shard
    pictures: list[NDArray[np.uint8]] = []
    with bench.narrator.bar(title, total=-(-len(prompts) // chunk) * len(bench.replay.grid)) as bar:
        for start in range(0, len(prompts), chunk):
            part = prompts[start : start + chunk]
            identities = [(seed, stream, prompt, image) for prompt in part for image in range(per_prompt)]
            starts = torch.stack([torch.randn(bench.policy.latent_shape, generator=seeded("start", *who)) for who in identities])
            latents = starts
            for step in _denoise(bench, part, per_prompt, starts, NoiseStreams([("step", *who) for who in identities])):
                latents = step.latents
                bar.advance()
            pictures.append(_decoded(bench, latents))
    return np.concatenate(pictures).reshape(len(prompts), per_prompt, *pictures[0].shape[1:])


def to_uint8(pictures: Float[Tensor, "B 3 H W"]) -> NDArray[np.uint8]:
    """(B, H, W, 3), as a PNG stores them."""
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _shards_of(bench: Workbench, round: int) -> list[list[str]]:
    config = bench.config
    prompts = prompts_of_round(bench.folder.prompts(), config.sampling.prompts_per_round, seed=config.seed, round=round)
    return cut_into_shards(config, prompts)


def _sample_shard(bench: Workbench, round: int, number: int, prompts: Sequence[str], on_step: Callable[[], None]) -> str:
    config = bench.config
    latent_shape = bench.policy.latent_shape_of(*bucket_of(config, prompts[0])) if config.sampling.buckets else bench.policy.latent_shape
    per_prompt = config.sampling.images_per_prompt
    identities = [(round, prompt, image) for prompt in prompts for image in range(per_prompt)]
    starts = torch.stack(
        [
            torch.randn(latent_shape, generator=seeded(config.seed, "start", *(who[:2] if config.sampling.shared_start else who)))
            for who in identities
        ]
    )
    judged_before = torch.tensor([judged_at(bench, round, prompt) for _, prompt, _ in identities])
    path = bench.folder.shard(round, number)
    with writing_shard(
        path, num_steps=len(bench.replay.grid), batch=len(identities), latent_shape=latent_shape, dtype=config.sampling.stored
    ) as shard:
        shard.append(starts)
        judged = starts.to(bench.policy.device)
        for position, step in enumerate(_denoise(bench, prompts, per_prompt, starts, _noise(bench, round, identities))):
            shard.append(step.latents, step.log_probs, step.sketches)
            judged = _judged(judged, step, position, judged_before)
            on_step()
        checksum = shard.finish()
    for name, pixels in zip(_picture_names(bench, round, number, len(identities)), _decoded(bench, judged), strict=True):
        write_atomically(bench.folder.path / name, png_bytes(pixels))
    return checksum


def _noise(bench: Workbench, round: int, identities: Sequence[tuple[int, str, int]]) -> NoiseStreams | BranchingStreams:
    """Noise of a round's steps: of each image by itself, or shared by a prompt's images until they part."""
    seed = bench.config.seed
    own = [(seed, "step", *who) for who in identities]
    branches = [branch for _, prompt, _ in identities if (branch := branch_of(bench, round, prompt)) is not None]
    if not branches:
        return NoiseStreams(own)
    stochastic = bench.replay.transition.stochastic(bench.replay.grid).tolist()
    return BranchingStreams([(seed, "shared step", *who[:2]) for who in identities], own, branches, stochastic)


def _denoise(
    bench: Workbench, prompts: Sequence[str], per_prompt: int, starts: Tensor, noise: NoiseStreams | BranchingStreams
) -> Iterator[RolloutStep]:
    """Denoise `per_prompt` images of each prompt, all in one batched call a step."""
    policy, replay = bench.policy, bench.replay.at(starts.shape[1:])
    condition = bench.encode_prompts(prompts).rows(torch.arange(len(prompts)).repeat_interleave(per_prompt))

    def predict(x_t: Tensor, timesteps: Tensor) -> Tensor:
        def part(rows: slice) -> Tensor:
            given = condition if len(x_t[rows]) == len(x_t) else condition.rows(torch.arange(len(x_t))[rows])
            return bench.finite(replay.predict(policy, x_t[rows], timesteps[rows], given), "the denoiser")

        return bench.sampling_sizer.split(part, len(x_t))

    stored: torch.dtype = getattr(torch, bench.config.sampling.stored)
    start = starts.to(policy.device, torch.promote_types(stored, starts.dtype))
    return rollout(predict, replay.transition, replay.grid, start, noise.draw, reduce=replay.reduce, stored=stored)


def _judged(judged: Tensor, step: RolloutStep, position: int, judged_before: Tensor) -> Tensor:
    """What is judged, as far as it is known after the step: what was expected once it has been expected, until then the latest latents."""
    before = judged_before.to(judged.device).view(-1, *[1] * (judged.ndim - 1))
    return torch.where(before < position, judged, torch.where(before == position, step.expected, step.latents))


def _decoded(bench: Workbench, latents: Tensor) -> NDArray[np.uint8]:
    """(B, H, W, 3), as a PNG stores them; as many pictures at a time as fit."""
    bench.finite(latents, "the denoiser")
    return to_uint8(bench.decoding_sizer.split(lambda rows: bench.finite(bench.policy.decode(latents[rows]), "the decoder"), len(latents)))


def _record(bench: Workbench, round: int, number: int, prompts: Sequence[str], checksum: str) -> None:
    per_prompt = bench.config.sampling.images_per_prompt
    names = _picture_names(bench, round, number, len(prompts) * per_prompt)
    ids = bench.store.pictures.add_prompts(prompts)
    images = [
        NewPicture(prompt=ids[i // per_prompt], number=i % per_prompt, path=name, sha256=sha256(bench.folder.path / name))
        for i, name in enumerate(names)
    ]
    bench.store.pictures.add_shard(
        round=round,
        number=number,
        path=bench.folder.relative(bench.folder.shard(round, number)),
        checksum=checksum,
        images=images,
        model=bench.config.model,
        policy=BASE if round == 0 else f"round-{round - 1:03}",
        seed=bench.config.seed,
    )


def _picture_names(bench: Workbench, round: int, number: int, count: int) -> list[str]:
    directory = bench.folder.relative(bench.folder.images(f"round-{round:03}"))
    return [f"{directory}/{number:03}-{row:03}.png" for row in range(count)]


def _damaged(bench: Workbench, round: int) -> list[int]:
    """Numbers of the round's shards whose file, or one of whose pictures, is not what was written."""
    files = {record.id: [(record.path, record.checksum)] for record in bench.store.pictures.shards(round)}
    for image in bench.store.pictures.images(round):
        files[image.shard_id].append((image.path, image.sha256))
    return [
        record.number
        for record in bench.store.pictures.shards(round)
        if not all(_is_whole(bench.folder.path / path, checksum) for path, checksum in files[record.id])
    ]


def _is_whole(path: Path, checksum: str) -> bool:
    return path.exists() and sha256(path) == checksum
