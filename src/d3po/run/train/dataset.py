"""How a vote becomes what the trainer reads: from a round's votes to one `PromptGroup` a prompt. `d3po.training.trainer` makes gradients of them.

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
from d3po.run.feedback.labels import RoundLabels, labels_of_round, labels_one_by_one
from d3po.run.opened import OpenRun
from d3po.run.sample.branching import branch_of
from d3po.run.sample.encoding import encoded
from d3po.run.session import Session
from d3po.run.train.reference import References, steps_of_shards
from d3po.training.data import ImageLabels, PromptGroup


@dataclass(frozen=True, kw_only=True)
class LocatedImage:
    """An image, and where its latents lie."""

    id: int
    prompt_id: int
    prompt: str
    shard: Shard
    row: int


def load_round(session: Session, round: int, references: References) -> tuple[list[PromptGroup], Condition]:
    """The round's judgements as prompt groups, and the condition of their prompts.

    No groups, if all pictures of a round were judged alike: where the first round had better and worse ones, that is what success looks like.

    Raises:
        RunFolderError: nothing was judged, or all pictures of the first round alike.
        CorruptFileError: a shard is damaged.
    """
    labels = labels_of_round(session.run, round)
    images = images_of_round(session, round, labels.held_out)
    prompts = {image.prompt_id: image.prompt for image in images.values()}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    condition = session.encode_prompts(list(prompts.values()))
    reference = steps_of_shards(session, round, indices_by_shard(images.values(), order), condition, references)
    reads_pairs = session.run.needs.labels == "pairs"
    told = _pairs_by_prompt(session.run, round, labels, images) if reads_pairs else _labels_by_prompt(session.run, round, labels, images)
    groups = [
        PromptGroup(
            prompt=order[prompt],
            identity=prompts[prompt],
            shard=told[prompt].images[0].shard,
            rows=(rows := torch.tensor([image.row for image in told[prompt].images])),
            pairs=told[prompt].pairs,
            targets=told[prompt].targets,
            weights=told[prompt].weights,
            labels=told[prompt].labels,
            reference=reference[told[prompt].images[0].shard].of(rows) if reference else None,
            branch=branch_of(session, round, prompts[prompt]),
        )
        for prompt in prompts
        if prompt in told
    ]
    return groups, condition


def share_references(session: Session, round: int, references: References) -> None:
    """Of several processes, let each compute the reference's steps of its share of the round's shards, and keep them for all."""
    if session.run.distributed.size == 1 or session.run.config.feedback.source == "imported":
        return
    images = list(_sampled(session.run, round).values())
    prompts = {image.prompt_id: image.prompt for image in images}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    mine = session.run.distributed.share(sorted({image.shard.path for image in images}))
    condition = session.encode_prompts(list(prompts.values()))
    indices = indices_by_shard([image for image in images if image.shard.path in mine], order)
    steps_of_shards(session, round, indices, condition, references)
    session.run.distributed.gather(None)  # nobody goes on before all are kept


def indices_by_shard(images: Iterable[LocatedImage], order: Mapping[int, int]) -> dict[Shard, list[int]]:
    """Of each shard, its images' rows in the condition, in the order in which the shard holds them."""
    indices: dict[Shard, list[int]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.row):
        indices[image.shard].append(order[image.prompt_id])
    return indices


def images_of_round(session: Session, round: int, held_out_votes: int) -> dict[int, LocatedImage]:
    """By id, the images that the round's labels may speak of; what was sampled is checked, what was imported is encoded once."""
    return _imported(session, held_out_votes) if session.run.config.feedback.source == "imported" else _sampled(session.run, round)


def _sampled(run: OpenRun, round: int) -> dict[int, LocatedImage]:
    """The round's own images, in the order they were sampled; their shards are checked."""
    shards = {record.id: open_shard(run.folder.path / record.path, record.checksum) for record in run.store.pictures.shards(round)}
    return {
        image.id: LocatedImage(id=image.id, prompt_id=image.prompt_id, prompt=image.prompt, shard=shards[image.shard_id], row=image.row)
        for image in run.store.pictures.images(round)
    }


def _imported(session: Session, held_out_votes: int) -> dict[int, LocatedImage]:
    if held_out_votes:
        session.run.narrator.say(
            f"{held_out_votes} imported votes are of held-out prompts, so they are left out of training; to learn from them, begin a run with others"
        )
    pictures = [picture for picture in session.run.store.pictures.imported() if picture.prompt_id not in session.run.held_out_prompts]
    if not pictures:
        raise RunFolderError(
            f"no picture was imported{' but of held-out prompts' if held_out_votes else ''}; "
            f"bring some with `d3po votes import {session.run.folder.path} FILE --format ...`"
        )
    latents = encoded(session, pictures)
    return {
        picture.id: LocatedImage(
            id=picture.id, prompt_id=picture.prompt_id, prompt=picture.prompt, shard=latents[picture.id][0], row=latents[picture.id][1]
        )
        for picture in pictures
    }


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What was said of one prompt's images."""

    images: list[LocatedImage]
    pairs: Tensor
    targets: Tensor
    weights: Tensor
    labels: ImageLabels | None = None


def _pairs_by_prompt(run: OpenRun, round: int, labels: RoundLabels, images: Mapping[int, LocatedImage]) -> dict[int, _Told]:
    objective = run.objective
    assert isinstance(objective, PairObjective)
    by_prompt: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in labels.comparisons:
        if comparison.weight > 0 and not (comparison.is_tie and objective.drops_ties):
            by_prompt[images[comparison.image_a].prompt_id].append(comparison)
    if all(comparison.is_tie for comparison in labels.comparisons) and (round == 0 or not labels.comparisons):
        raise RunFolderError(f"round {round} has no comparison with a preference; {_remedy(run, labels_one_by_one(run, round))}")
    return {prompt: _pairs_of(theirs, images) for prompt, theirs in by_prompt.items()}


def _pairs_of(comparisons: Sequence[Comparison], images: Mapping[int, LocatedImage]) -> _Told:
    """Only images that take part in a comparison are kept, so that no network row is spent on others."""
    ids = sorted({image for c in comparisons for image in (c.image_a, c.image_b)})
    position = {image: k for k, image in enumerate(ids)}
    return _Told(
        images=[images[image] for image in ids],
        pairs=torch.tensor([[position[c.image_a], position[c.image_b]] for c in comparisons]),
        targets=torch.tensor([c.target for c in comparisons]),
        weights=torch.tensor([c.weight for c in comparisons]),
    )


def _labels_by_prompt(run: OpenRun, round: int, round_labels: RoundLabels, images: Mapping[int, LocatedImage]) -> dict[int, _Told]:
    labels = [label for label in round_labels.images if label.image in images]
    objective = run.objective
    assert isinstance(objective, ImageObjective)
    said = torch.tensor([label.value for label in labels])
    if not objective.can_learn_from(said):
        if round and labels:
            return {}
        span = f", from {said.min():g} to {said.max():g}" if labels else ""
        raise RunFolderError(f"round {round} has {len(labels)} labels{span}; {_remedy(run, labels)}")
    prompts = torch.tensor([images[label.image].prompt_id for label in labels])
    values = objective.values(said, prompts)
    by_prompt: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts.tolist()):
        by_prompt[prompt].append(place)
    return {prompt: _labels_of([labels[i] for i in places], values[places], images) for prompt, places in by_prompt.items()}


def _remedy(run: OpenRun, labels: Sequence[ImageLabel]) -> str:
    """What to do where the objective can learn nothing from a round."""
    said = torch.tensor([label.value for label in labels])
    imported = run.config.feedback.source == "imported"
    open_to_it: list[ObjectiveName] = [
        name for name, entry in OBJECTIVES.items() if not (imported and entry.needs.evidence == "trajectories")
    ]
    able = [name for name in open_to_it if isinstance(made := build(name), ImageObjective) and made.can_learn_from(said)]
    nothing = f"{run.config.objective.name} can learn nothing from it"
    if not able:
        return f"{nothing} (was anything judged yet? are all of them ties?)"
    return f"{nothing}, but {', '.join(able)} can, which read pictures one by one: begin a run by `d3po init RUN --objective {able[-1]}`"


def _labels_of(labels: Sequence[ImageLabel], values: Tensor, images: Mapping[int, LocatedImage]) -> _Told:
    said = torch.tensor([label.value for label in labels])
    nothing = torch.zeros(0)
    return _Told(
        images=[images[label.image] for label in labels],
        pairs=torch.zeros(0, 2, dtype=torch.long),
        targets=nothing,
        weights=nothing,
        labels=ImageLabels(values=values, signs=centred(said).sign(), weights=torch.tensor([label.weight for label in labels])),
    )
