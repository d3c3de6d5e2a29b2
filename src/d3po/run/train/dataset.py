"""A round's judgements as the trainer reads them: grouped by prompt, with latents, labels and the reference's steps."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from d3po.config import Objective
from d3po.errors import RunFolderError
from d3po.models.base import Condition
from d3po.objectives.base import ImageObjective, PairObjective, centred
from d3po.objectives.registry import OBJECTIVES, build
from d3po.options import ObjectiveName, ReferenceRefresh
from d3po.preferences.labels import ImageLabel
from d3po.preferences.records import Comparison
from d3po.run.feedback.labels import comparisons_learnt_from, held_out_votes, labels_learnt_from
from d3po.run.sample.branching import branch_of
from d3po.run.sample.encoding import encoded
from d3po.run.workbench import Workbench
from d3po.storage.files import find_whole, write_atomically
from d3po.storage.shards import Shard, open_shard
from d3po.training.data import ImageLabels, PromptGroup, ReferenceSteps
from d3po.training.reference import reference_steps, standing_in

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class References:
    """The policies that a round may be compared with."""

    start: Weights | None
    """The trainable weights the round began with; None before any training."""
    moving: Weights | None
    """Those of the moving average, of runs that keep one."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """An image, and where its latents lie."""

    id: int
    prompt_id: int
    prompt: str
    shard: Shard
    row: int


def load_round(bench: Workbench, round: int, references: References) -> tuple[list[PromptGroup], Condition]:
    """The round's judgements as prompt groups, and the condition of their prompts.

    No groups, if all pictures of a round were judged alike: where the first round had better and worse ones, that is what success looks like.

    Raises:
        RunFolderError: nothing was judged, or all pictures of the first round alike.
        CorruptFileError: a shard is damaged.
    """
    images = _imported(bench) if bench.config.feedback.source == "imported" else _sampled(bench, round)
    prompts = {image.prompt_id: image.prompt for image in images.values()}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    condition = bench.encode_prompts(list(prompts.values()))
    reference = _reference_steps(bench, round, list(images.values()), condition, order, references)
    told = _told_in_pairs(bench, round, images) if bench.trainer.needs.labels == "pairs" else _told_one_by_one(bench, round, images)
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
            branch=branch_of(bench, round, prompts[prompt]),
        )
        for prompt in prompts
        if prompt in told
    ]
    return groups, condition


def share_references(bench: Workbench, round: int, references: References) -> None:
    """Of several processes, let each compute the reference's steps of its share of the round's shards, and keep them for all."""
    if bench.team.size == 1 or bench.config.feedback.source == "imported":
        return
    images = list(_sampled(bench, round).values())
    prompts = {image.prompt_id: image.prompt for image in images}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    mine = bench.team.share(sorted({image.shard.path for image in images}))
    condition = bench.encode_prompts(list(prompts.values()))
    _reference_steps(bench, round, [image for image in images if image.shard.path in mine], condition, order, references)
    bench.team.gather(None)  # nobody goes on before all are kept


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What was said of one prompt's images."""

    images: list[Located]
    pairs: Tensor
    targets: Tensor
    weights: Tensor
    labels: ImageLabels | None = None


def _told_in_pairs(bench: Workbench, round: int, images: Mapping[int, Located]) -> dict[int, _Told]:
    objective = bench.trainer.objective
    assert isinstance(objective, PairObjective)
    by_prompt: dict[int, list[Comparison]] = defaultdict(list)
    comparisons = comparisons_learnt_from(bench, round)
    for comparison in comparisons:
        if comparison.weight > 0 and not (comparison.is_tie and objective.drops_ties):
            by_prompt[images[comparison.image_a].prompt_id].append(comparison)
    if all(comparison.is_tie for comparison in comparisons) and (round == 0 or not comparisons):
        raise RunFolderError(f"round {round} has no comparison with a preference; {_remedy(bench, labels_learnt_from(bench, round))}")
    return {prompt: _pairs_of(theirs, images) for prompt, theirs in by_prompt.items()}


def _pairs_of(comparisons: Sequence[Comparison], images: Mapping[int, Located]) -> _Told:
    """Only images that take part in a comparison are kept, so that no network row is spent on others."""
    ids = sorted({image for c in comparisons for image in (c.image_a, c.image_b)})
    position = {image: k for k, image in enumerate(ids)}
    return _Told(
        images=[images[image] for image in ids],
        pairs=torch.tensor([[position[c.image_a], position[c.image_b]] for c in comparisons]),
        targets=torch.tensor([c.target for c in comparisons]),
        weights=torch.tensor([c.weight for c in comparisons]),
    )


def _told_one_by_one(bench: Workbench, round: int, images: Mapping[int, Located]) -> dict[int, _Told]:
    labels = [label for label in labels_learnt_from(bench, round) if label.image in images]
    objective = bench.trainer.objective
    assert isinstance(objective, ImageObjective)
    said = torch.tensor([label.value for label in labels])
    if not objective.can_learn_from(said):
        if round and labels:
            return {}
        span = f", from {said.min():g} to {said.max():g}" if labels else ""
        raise RunFolderError(f"round {round} has {len(labels)} labels{span}; {_remedy(bench, labels)}")
    prompts = torch.tensor([images[label.image].prompt_id for label in labels])
    values = objective.values(said, prompts)
    by_prompt: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts.tolist()):
        by_prompt[prompt].append(place)
    return {prompt: _labels_of([labels[i] for i in places], values[places], images) for prompt, places in by_prompt.items()}


def _remedy(bench: Workbench, labels: Sequence[ImageLabel]) -> str:
    """What to do where the objective can learn nothing from a round."""
    said, settings = torch.tensor([label.value for label in labels]), Objective().model_dump()
    imported = bench.config.feedback.source == "imported"
    open_to_it: list[ObjectiveName] = [
        name for name, entry in OBJECTIVES.items() if not (imported and entry.needs.evidence == "trajectories")
    ]
    able = [name for name in open_to_it if isinstance(made := build(name, settings), ImageObjective) and made.can_learn_from(said)]
    nothing = f"{bench.config.objective.name} can learn nothing from it"
    if not able:
        return f"{nothing} (was anything judged yet? are all of them ties?)"
    return f"{nothing}, but {', '.join(able)} can, which read pictures one by one: begin a run by `d3po init RUN --objective {able[-1]}`"


def _labels_of(labels: Sequence[ImageLabel], values: Tensor, images: Mapping[int, Located]) -> _Told:
    said = torch.tensor([label.value for label in labels])
    nothing = torch.zeros(0)
    return _Told(
        images=[images[label.image] for label in labels],
        pairs=torch.zeros(0, 2, dtype=torch.long),
        targets=nothing,
        weights=nothing,
        labels=ImageLabels(values=values, leans=centred(said).sign(), weights=torch.tensor([label.weight for label in labels])),
    )


def _sampled(bench: Workbench, round: int) -> dict[int, Located]:
    """The round's own images, in the order they were sampled; their shards are checked."""
    shards = {record.id: open_shard(bench.folder.path / record.path, record.checksum) for record in bench.store.pictures.shards(round)}
    return {
        image.id: Located(id=image.id, prompt_id=image.prompt_id, prompt=image.prompt, shard=shards[image.shard_id], row=image.row)
        for image in bench.store.pictures.images(round)
    }


def _imported(bench: Workbench) -> dict[int, Located]:
    if count := held_out_votes(bench):
        bench.narrator.say(
            f"{count} imported votes are of held-out prompts, so they are left out of training; to learn from them, begin a run with others"
        )
    pictures = [picture for picture in bench.store.pictures.imported() if picture.prompt_id not in bench.held_out_prompts]
    if not pictures:
        raise RunFolderError(
            f"no picture was imported{' but of held-out prompts' if count else ''}; bring some with `d3po votes import {bench.folder.path} FILE --format ...`"
        )
    latents = encoded(bench, pictures)
    return {
        picture.id: Located(
            id=picture.id, prompt_id=picture.prompt_id, prompt=picture.prompt, shard=latents[picture.id][0], row=latents[picture.id][1]
        )
        for picture in pictures
    }


def _reference_steps(
    bench: Workbench, round: int, images: Sequence[Located], condition: Condition, order: Mapping[int, int], references: References
) -> dict[Shard, ReferenceSteps]:
    """Of each shard, the steps of the reference of objectives that read trajectories."""
    if bench.trainer.needs.evidence == "pictures":
        return {}
    rows: dict[Shard, list[int]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.row):
        rows[image.shard].append(order[image.prompt_id])
    return {shard: _of_shard(bench, round, shard, condition.rows(torch.tensor(mine)), references) for shard, mine in rows.items()}


def _of_shard(bench: Workbench, round: int, shard: Shard, condition: Condition, references: References) -> ReferenceSteps:
    """The sampler's own where it was the reference, else computed once and kept."""
    sketches = shard.sketches()
    if sketches is None and bench.config.adapter.method == "full":
        raise RunFolderError(
            f"rollout shard {shard.path} was sampled by an earlier version, which kept nothing to measure the KL by; start a new run folder"
        )
    if (reference_kind(bench) == "per_round" or round == 0) and bench.config.training.guided and sketches is not None:
        return ReferenceSteps(log_probs=shard.log_probs(), sketches=sketches)
    cached = _cached(shard)
    if cached is not None:
        return cached
    steps = reference_steps(
        bench.policy,
        bench.trainer.replay,
        shard,
        condition,
        max_rows=bench.config.training.max_rows,
        fitting=bench.reference_fits,
        within=reference_context(bench, references),
    )
    content = save({"log_probs": steps.log_probs, "sketches": steps.sketches})
    write_atomically(shard.path.with_suffix(f".reference-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"), content)
    return steps


def reference_kind(bench: Workbench) -> ReferenceRefresh:
    """Which policy the objective compares with; those that compare with the sampler take the round's start, whatever is chosen."""
    return "per_round" if bench.trainer.needs.reference == "sampler" else bench.config.objective.reference


def reference_context(bench: Workbench, references: References) -> AbstractContextManager[None]:
    """Within it the policy is the round's reference."""
    weights = {"fixed": None, "per_round": references.start, "ema": references.moving}[reference_kind(bench)]
    return bench.policy.without_adapter() if weights is None else standing_in(bench.policy, weights)


def _cached(shard: Shard) -> ReferenceSteps | None:
    """The kept steps of the reference, if their bytes are those whose hash the file's name carries; what is damaged, or has no sketches, is made anew."""
    path = find_whole(shard.path.parent, f"{shard.path.stem}.reference")
    kept = {} if path is None else load_file(path)
    return ReferenceSteps(log_probs=kept["log_probs"], sketches=kept["sketches"]) if "sketches" in kept else None
