"""Makes the training data of a round from its votes: one `PromptGroup` for each prompt, which `d3po.training.trainer` trains on.

votes -> labels (`labels_of_round`: comparisons, or labels of single images) -> images with their latents (`_sampled`, `_imported`)
-> targets and weights of each prompt (`_pairs_by_prompt`, `_labels_by_prompt`) -> groups, with the reference's steps
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d3po.artifacts.shards import Shard, open_shard
from d3po.errors import RunFolderError
from d3po.models.base import Condition
from d3po.objective_settings import ObjectiveName
from d3po.objectives.base import ImageObjective, PairObjective, centred
from d3po.objectives.registry import OBJECTIVES, build
from d3po.preferences.labels import ImageLabel
from d3po.preferences.records import Comparison
from d3po.run.feedback.labels import RoundLabels, as_tensors, labels_of_round, labels_one_by_one
from d3po.run.opened import OpenRun
from d3po.run.sample.branching import branch_of
from d3po.run.sample.encoding import encoded
from d3po.run.session import Session
from d3po.run.train.reference import References, steps_of_shards
from d3po.training.data import GroupLabels, PromptGroup


@dataclass(frozen=True, kw_only=True)
class LocatedImage:
    """An image, and the shard that holds its latents."""

    id: int
    prompt_id: int
    prompt: str
    shard: Shard
    row: int
    """The index of the image in the shard."""


def load_round(session: Session, round: int, references: References) -> tuple[list[PromptGroup], Condition]:
    """Load the round's labels as prompt groups, and the condition of their prompts.

    There are no groups if all pictures of a later round were rated alike. That is no error: it is what a policy that has learnt everything looks like.

    Raises:
        RunFolderError: nothing was rated, or all pictures of the first round were rated alike.
        CorruptFileError: a shard is damaged.
    """
    labels = labels_of_round(session.run, round)
    images = images_of_round(session, round, labels.held_out)
    prompts = {image.prompt_id: image.prompt for image in images.values()}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    condition = session.encode_prompts(list(prompts.values()))
    reference = steps_of_shards(session, round, indices_by_shard(images.values(), order), condition, references)
    reads_pairs = session.run.needs.labels == "pairs"
    by_prompt = (
        _pairs_by_prompt(session.run, round, labels, images) if reads_pairs else _labels_by_prompt(session.run, round, labels, images)
    )
    groups = [
        PromptGroup(
            prompt=order[prompt],
            identity=prompts[prompt],
            shard=by_prompt[prompt].images[0].shard,
            indices=(indices := torch.tensor([image.row for image in by_prompt[prompt].images])),
            pairs=by_prompt[prompt].pairs,
            targets=by_prompt[prompt].targets,
            weights=by_prompt[prompt].weights,
            labels=by_prompt[prompt].labels,
            reference=reference[by_prompt[prompt].images[0].shard].of(indices) if reference else None,
            branch=branch_of(session, round, prompts[prompt]),
        )
        for prompt in prompts
        if prompt in by_prompt
    ]
    return groups, condition


def share_references(session: Session, round: int, references: References) -> None:
    """In a run with several processes, let each compute the reference's steps for its share of the round's shards, and cache them for all."""
    if session.run.distributed.size == 1 or session.run.config.feedback.source == "imported":
        return
    images = list(_sampled(session.run, round).values())
    prompts = {image.prompt_id: image.prompt for image in images}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    mine = session.run.distributed.share(sorted({image.shard.path for image in images}))
    condition = session.encode_prompts(list(prompts.values()))
    indices = indices_by_shard([image for image in images if image.shard.path in mine], order)
    steps_of_shards(session, round, indices, condition, references)
    session.run.distributed.gather(None)  # wait until all processes have cached theirs


def indices_by_shard(images: Iterable[LocatedImage], order: Mapping[int, int]) -> dict[Shard, list[int]]:
    """For each shard, the index in the condition of each of its images, in the order of the shard."""
    indices: dict[Shard, list[int]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.row):
        indices[image.shard].append(order[image.prompt_id])
    return indices


def images_of_round(session: Session, round: int, held_out_votes: int) -> dict[int, LocatedImage]:
    """The images to which the round's labels may refer, by id. Shards of sampled images are checked; imported images are encoded once.

    Raises:
        RunFolderError: there are no imported pictures to train on.
        CorruptFileError: a shard or a picture is missing or damaged.
    """
    return _imported(session, held_out_votes) if session.run.config.feedback.source == "imported" else _sampled(session.run, round)


def _sampled(run: OpenRun, round: int) -> dict[int, LocatedImage]:
    """The images that were sampled in the round, in order. Their shards are checked."""
    shards = {record.id: open_shard(run.folder.path / record.path, record.checksum) for record in run.store.pictures.shards(round)}
    return {
        image.id: LocatedImage(id=image.id, prompt_id=image.prompt_id, prompt=image.prompt, shard=shards[image.shard_id], row=image.row)
        for image in run.store.pictures.images(round)
    }


def _imported(session: Session, held_out_votes: int) -> dict[int, LocatedImage]:
    if held_out_votes:
        session.run.narrator.say(
            f"{held_out_votes} imported votes are on held-out prompts, so they are left out of training; to learn from them, begin a run with other "
            "held-out prompts"
        )
    pictures = [picture for picture in session.run.store.pictures.imported() if picture.prompt_id not in session.run.held_out_prompts]
    if not pictures:
        raise RunFolderError(
            f"no picture was imported{', except for held-out prompts' if held_out_votes else ''}; "
            f"import some with `d3po votes import {session.run.folder.path} FILE --format ...`"
        )
    latents = encoded(session, pictures)
    return {
        picture.id: LocatedImage(
            id=picture.id, prompt_id=picture.prompt_id, prompt=picture.prompt, shard=latents[picture.id][0], row=latents[picture.id][1]
        )
        for picture in pictures
    }


@dataclass(frozen=True, kw_only=True)
class _PromptLabels:
    """The labels of one prompt's images."""

    images: list[LocatedImage]
    pairs: Tensor
    targets: Tensor
    weights: Tensor
    labels: GroupLabels | None = None


def _pairs_by_prompt(run: OpenRun, round: int, labels: RoundLabels, images: Mapping[int, LocatedImage]) -> dict[int, _PromptLabels]:
    objective = run.objective
    assert isinstance(objective, PairObjective)
    by_prompt: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in labels.comparisons:
        if comparison.weight > 0 and not (comparison.is_tie and objective.drops_ties):
            by_prompt[images[comparison.image_a].prompt_id].append(comparison)
    if all(comparison.is_tie for comparison in labels.comparisons) and (round == 0 or not labels.comparisons):
        raise RunFolderError(f"round {round} has no comparison with a preference; {_remedy(run, labels_one_by_one(run, round), images)}")
    return {prompt: _pairs_of(theirs, images) for prompt, theirs in by_prompt.items()}


def _pairs_of(comparisons: Sequence[Comparison], images: Mapping[int, LocatedImage]) -> _PromptLabels:
    """Make the labels of one prompt. Images that are in no comparison are left out, so that no forward pass is spent on them."""
    ids = sorted({image for c in comparisons for image in (c.image_a, c.image_b)})
    position = {image: k for k, image in enumerate(ids)}
    return _PromptLabels(
        images=[images[image] for image in ids],
        pairs=torch.tensor([[position[c.image_a], position[c.image_b]] for c in comparisons]),
        targets=torch.tensor([c.target for c in comparisons]),
        weights=torch.tensor([c.weight for c in comparisons]),
    )


def _labels_by_prompt(run: OpenRun, round: int, round_labels: RoundLabels, images: Mapping[int, LocatedImage]) -> dict[int, _PromptLabels]:
    labels = [label for label in round_labels.images if label.image in images]
    objective = run.objective
    assert isinstance(objective, ImageObjective)
    said, prompts = as_tensors(labels, _prompts_of(images))
    if not objective.can_learn_from(said, prompts):
        if round and labels:
            return {}
        span = f", from {said.min():g} to {said.max():g}" if labels else ""
        raise RunFolderError(f"round {round} has {len(labels)} labels{span}; {_remedy(run, labels, images)}")
    values = objective.values(said, prompts)
    by_prompt: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts.tolist()):
        by_prompt[prompt].append(place)
    return {prompt: _labels_of([labels[i] for i in places], values[places], images) for prompt, places in by_prompt.items()}


def _remedy(run: OpenRun, labels: Sequence[ImageLabel], images: Mapping[int, LocatedImage]) -> str:
    """Say what to do if the objective can learn nothing from a round."""
    labels = [label for label in labels if label.image in images]
    said, prompts = as_tensors(labels, _prompts_of(images))
    imported = run.config.feedback.source == "imported"
    open_to_it: list[ObjectiveName] = [
        name for name, entry in OBJECTIVES.items() if not (imported and entry.needs.evidence == "trajectories")
    ]
    able = [name for name in open_to_it if isinstance(made := build(name), ImageObjective) and made.can_learn_from(said, prompts)]
    nothing = f"{run.config.objective.name} can learn nothing from it"
    if not able:
        return f"{nothing} (are there votes yet, and are they all ties?)"
    return (
        f"{nothing}, but {', '.join(able)} can, which learn from single pictures: begin a run with `d3po init RUN --objective {able[-1]}`"
    )


def _prompts_of(images: Mapping[int, LocatedImage]) -> dict[int, int]:
    return {image: located.prompt_id for image, located in images.items()}


def _labels_of(labels: Sequence[ImageLabel], values: Tensor, images: Mapping[int, LocatedImage]) -> _PromptLabels:
    said = torch.tensor([label.value for label in labels])
    nothing = torch.zeros(0)
    return _PromptLabels(
        images=[images[label.image] for label in labels],
        pairs=torch.zeros(0, 2, dtype=torch.long),
        targets=nothing,
        weights=nothing,
        labels=GroupLabels(values=values, signs=centred(said).sign(), weights=torch.tensor([label.weight for label in labels])),
    )
