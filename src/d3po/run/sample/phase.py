"""The sampling phase: a round's rollouts, and evaluation pictures."""

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
from d3po.pictures import encode
from d3po.run.folder import label_of
from d3po.run.opened import OpenRun
from d3po.run.prompts import prompts_of_round
from d3po.run.sample.branching import BranchingStreams, branch_of, compared_at
from d3po.run.sample.buckets import bucket_of, cut_into_shards
from d3po.run.session import Session
from d3po.store import NewPicture


def sample_round(session: Session, round: int, *, repair: bool = False) -> None:
    """Sample the round's images and record them. Shards that exist are kept.

    Args:
        session: the open run with its model.
        round: the round.
        repair: also check the existing shards and their pictures, and make missing or damaged ones again.

    Raises:
        ModelError: the model gives values that are not finite; no picture is made of them.
        NonFiniteError: a trained policy gives such values, in any process.
        CorruptFileError: a shard that was made again differs from the recorded one.
    """
    shards = _shards_of(session.run, round)
    done = {record.number: record for record in session.run.store.pictures.shards(round)}
    missing = [number for number in range(len(shards)) if number not in done]
    damaged = _damaged(session.run, round) if repair else []
    if not missing and not damaged:
        return
    session.load_round_weights(round)
    todo, distributed = sorted([*missing, *damaged]), session.run.distributed
    with session.run.narrator.bar(f"round {round}: sampling", total=-(-len(todo) // distributed.size) * len(session.replay.grid)) as bar:
        for start in range(0, len(todo), distributed.size):
            mine = distributed.share(todo[start : start + distributed.size])
            made: dict[int, str] | NonFiniteError
            try:
                made = {number: _sample_shard(session, round, number, shards[number], on_step=lambda: bar.advance()) for number in mine}
            except NonFiniteError as error:
                made = error
            checksums: dict[int, str] = {}
            for theirs in distributed.gather(made):
                if isinstance(theirs, NonFiniteError):
                    raise theirs
                checksums |= theirs
            distributed.lead(
                partial(_take_down, session.run, round, shards, checksums, {number: record.checksum for number, record in done.items()})
            )


def _take_down(
    run: OpenRun, round: int, shards: Sequence[Sequence[str]], checksums: Mapping[int, str], recorded: Mapping[int, str]
) -> None:
    """Record new shards. Shards that were made again must equal the recorded ones.

    Raises:
        CorruptFileError: a shard that was made again differs.
    """
    for number, checksum in checksums.items():
        if checksum != recorded.get(number, checksum):
            raise CorruptFileError(
                f"shard {number} of round {round} was made again but differs from the recorded one (other torch version or machine?); "
                "start a new run folder"
            )
        if number not in recorded:
            _record(run, round, number, shards[number], checksum)
    run.folder.remember(run.store)


def is_sampled(run: OpenRun, round: int) -> bool:
    """Whether all shards of the round are recorded."""
    return len(run.store.pictures.shards(round)) == len(_shards_of(run, round))


def sample_pictures(session: Session, prompts: Sequence[str], per_prompt: int, *, stream: str, title: str) -> NDArray[np.uint8]:
    """Sample pictures with the policy's present weights, in the run's default size, as uint8 of shape (P prompts, n images, height, width, 3).

    The noise of image i of a prompt, x_T included, depends on the seed, `stream`, the prompt and i alone, so that the pictures of two policies
    from the same stream can be compared side by side.

    Args:
        session: the open run with its model.
        prompts: the P prompts.
        per_prompt: n, the number of images of each prompt.
        stream: part of the noise identity.
        title: the title of the progress bar.
    """
    seed, chunk = session.run.config.seed, session.run.config.sampling.prompts_per_shard
    pictures: list[NDArray[np.uint8]] = []
    with session.run.narrator.bar(title, total=-(-len(prompts) // chunk) * len(session.replay.grid)) as bar:
        for start in range(0, len(prompts), chunk):
            part = prompts[start : start + chunk]
            identities = [(seed, stream, prompt, image) for prompt in part for image in range(per_prompt)]
            starts = torch.stack([torch.randn(session.policy.latent_shape, generator=seeded("start", *who)) for who in identities])
            latents = starts
            for step in _denoise(session, part, per_prompt, starts, NoiseStreams([("step", *who) for who in identities])):
                latents = step.latents
                bar.advance()
            pictures.append(_decoded(session, latents))
    return np.concatenate(pictures).reshape(len(prompts), per_prompt, *pictures[0].shape[1:])


def to_uint8(pictures: Float[Tensor, "B 3 H W"]) -> NDArray[np.uint8]:
    """Convert pictures in [0, 1] to uint8 of shape (B, H, W, 3)."""
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _shards_of(run: OpenRun, round: int) -> list[list[str]]:
    config = run.config
    prompts = prompts_of_round(run.folder.prompts(), config.sampling.prompts_per_round, seed=config.seed, round=round)
    return cut_into_shards(config, prompts)


def _sample_shard(session: Session, round: int, number: int, prompts: Sequence[str], on_step: Callable[[], None]) -> str:
    config = session.run.config
    latent_shape = (
        session.policy.latent_shape_of(*bucket_of(config, prompts[0])) if config.sampling.buckets else session.policy.latent_shape
    )
    per_prompt = config.sampling.images_per_prompt
    identities = [(round, prompt, image) for prompt in prompts for image in range(per_prompt)]
    starts = torch.stack(
        [
            torch.randn(latent_shape, generator=seeded(config.seed, "start", *(who[:2] if config.sampling.shared_start else who)))
            for who in identities
        ]
    )
    compared_at_step = torch.tensor([compared_at(session, round, prompt) for _, prompt, _ in identities])
    path = session.run.folder.shard(round, number)
    with writing_shard(
        path, num_steps=len(session.replay.grid), batch=len(identities), latent_shape=latent_shape, dtype=config.sampling.stored
    ) as shard:
        shard.append(starts)
        compared = starts.to(session.policy.device)
        for position, step in enumerate(_denoise(session, prompts, per_prompt, starts, _noise(session, round, identities))):
            shard.append(step.latents, step.log_probs, step.sketches)
            compared = _compared(compared, step, position, compared_at_step)
            on_step()
        checksum = shard.finish()
    for name, pixels in zip(_picture_names(session.run, round, number, len(identities)), _decoded(session, compared), strict=True):
        write_atomically(session.run.folder.path / name, encode(Image.fromarray(pixels)))
    return checksum


def _noise(session: Session, round: int, identities: Sequence[tuple[int, str, int]]) -> NoiseStreams | BranchingStreams:
    """The noise of a round's steps: separate for each image, or shared by a prompt's images before their branching step."""
    config = session.run.config
    seed, once = config.seed, config.sampling.branch_noise == "step"
    separate = [(seed, "step", *who) for who in identities]
    branches = [branch for _, prompt, _ in identities if (branch := branch_of(session, round, prompt)) is not None]
    if not branches:
        return NoiseStreams(separate)
    stochastic = session.replay.transition.stochastic(session.replay.grid).tolist()
    return BranchingStreams([(seed, "shared step", *who[:2]) for who in identities], separate, branches, stochastic, once=once)


def _denoise(
    session: Session, prompts: Sequence[str], per_prompt: int, starts: Tensor, noise: NoiseStreams | BranchingStreams
) -> Iterator[RolloutStep]:
    """Denoise `per_prompt` images of each prompt, all of them in one batch at each step."""
    policy, replay = session.policy, session.replay.at(starts.shape[1:])
    condition = session.encode_prompts(prompts).select(torch.arange(len(prompts)).repeat_interleave(per_prompt))

    def predict(x_t: Tensor, timesteps: Tensor) -> Tensor:
        def part(chunk: slice) -> Tensor:
            given = condition if len(x_t[chunk]) == len(x_t) else condition.select(torch.arange(len(x_t))[chunk])
            return session.finite(replay.predict(policy, x_t[chunk], timesteps[chunk], given), "the denoiser")

        return session.sampling_sizer.split(part, len(x_t))

    stored: torch.dtype = getattr(torch, session.run.config.sampling.stored)
    start = starts.to(policy.device, torch.promote_types(stored, starts.dtype))
    return rollout(predict, replay.transition, replay.grid, start, noise.draw, reduce=replay.reduce, stored=stored)


def _compared(compared: Tensor, step: RolloutStep, position: int, compared_at_step: Tensor) -> Tensor:
    """Update the latents that are compared after a step: the expected ones at the position `compared_at_step`, the latest ones before it."""
    before = compared_at_step.to(compared.device).view(-1, *[1] * (compared.ndim - 1))
    return torch.where(before < position, compared, torch.where(before == position, step.expected, step.latents))


def _decoded(session: Session, latents: Tensor) -> NDArray[np.uint8]:
    """Decode latents to uint8 pictures of shape (B, H, W, 3), in batches that fit into memory."""
    session.finite(latents, "the denoiser")
    return to_uint8(
        session.decoding_sizer.split(lambda chunk: session.finite(session.policy.decode(latents[chunk]), "the decoder"), len(latents))
    )


def _record(run: OpenRun, round: int, number: int, prompts: Sequence[str], checksum: str) -> None:
    per_prompt = run.config.sampling.images_per_prompt
    names = _picture_names(run, round, number, len(prompts) * per_prompt)
    ids = run.store.pictures.add_prompts(prompts)
    images = [
        NewPicture(prompt=ids[i // per_prompt], number=i % per_prompt, path=name, sha256=sha256(run.folder.path / name))
        for i, name in enumerate(names)
    ]
    run.store.pictures.add_shard(
        round=round,
        number=number,
        path=run.folder.relative(run.folder.shard(round, number)),
        checksum=checksum,
        images=images,
        model=run.config.model,
        policy=label_of(round),
        seed=run.config.seed,
    )


def _picture_names(run: OpenRun, round: int, number: int, count: int) -> list[str]:
    directory = run.folder.relative(run.folder.images(f"round-{round:03}"))
    return [f"{directory}/{number:03}-{row:03}.png" for row in range(count)]


def _damaged(run: OpenRun, round: int) -> list[int]:
    """The numbers of the round's shards of which the file or a picture is missing or damaged."""
    files = {record.id: [(record.path, record.checksum)] for record in run.store.pictures.shards(round)}
    for image in run.store.pictures.images(round):
        files[image.shard_id].append((image.path, image.sha256))
    return [
        record.number
        for record in run.store.pictures.shards(round)
        if not all(_is_whole(run.folder.path / path, checksum) for path, checksum in files[record.id])
    ]


def _is_whole(path: Path, checksum: str) -> bool:
    return path.exists() and sha256(path) == checksum
