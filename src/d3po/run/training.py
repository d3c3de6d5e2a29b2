"""The training phase: a round's comparisons into updates, checkpointed so that a killed run continues where it was."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from d3po.errors import RunFolderError
from d3po.models.base import Condition
from d3po.preferences.records import Comparison, ImageRecord
from d3po.run.control import heed
from d3po.run.feedback import comparisons_learnt_from
from d3po.run.workbench import Workbench
from d3po.storage.checkpoints import list_checkpoints, save_checkpoint
from d3po.storage.files import sha256, write_atomically
from d3po.storage.shards import Shard, open_shard
from d3po.training.data import PromptGroup
from d3po.training.guards import check_round, check_update
from d3po.training.reference import moving_average, reference_log_probs, standing_in
from d3po.training.trainer import Metrics, Update

REFERENCE = "reference."
"""Prefix of the moving-average reference's weights in a checkpoint."""


def train_round(bench: Workbench, round: int) -> None:
    """Train on the round's comparisons up to the round's final checkpoint; a finished round is left as it is.

    Raises:
        TrainingStoppedError: a guard stopped it, or a loss was not finite; earlier rounds' checkpoints stand.
        RunEndedError: somebody ended the run from the dashboard.
    """
    if bench.trained_rounds() > round:
        return
    first, reference = _restore(bench, round)
    groups, condition = load_round(bench, round, reference)
    updates = bench.trainer.plan(len(groups), round)
    log = MetricsLog(bench, round, first)
    settings = bench.config.training
    bench.moved(None)
    pairs = sum(len(group.targets) for group in groups)
    with bench.narrator.bar(f"round {round}: training", total=len(updates)) as bar, log:
        bar.advance(first, f"{pairs} pairs")

        def after_update(update: Update, metrics: Metrics) -> None:
            log.write(update, metrics)
            bar.advance(1, f"{pairs} pairs  loss {metrics['loss']:.3f}  margin {metrics['margin']:+.4f}")
            bench.journal.write("update", round, number=update.number, of=len(updates), loss=metrics["loss"], margin=metrics["margin"])
            heed(bench)
            for alarm in check_update(metrics, bench.config.guards):
                bench.raise_alarm(alarm, round)
            done = update.number + 1
            if done % settings.checkpoint_every == 0 and done < len(updates):
                log.sync()
                _save(bench, round, done, final=False, reference=reference)

        bench.trainer.run(groups, condition, updates[first:], after_update=after_update)
    for alarm in check_round(log.metrics):
        bench.raise_alarm(alarm, round)
    if reference is not None:
        reference = moving_average(reference, bench.policy.state(), bench.config.objective.reference_decay)
    _save(bench, round, len(updates), final=True, reference=reference)
    bench.moved(round + 1)


def load_round(bench: Workbench, round: int, reference: dict[str, Tensor] | None) -> tuple[list[PromptGroup], Condition]:
    """The round's comparisons as prompt groups with their reference log-probs, and the condition of their prompts.

    Raises:
        RunFolderError: the round has no comparison that says which image is better.
        CorruptFileError: a shard is damaged.
    """
    images = {image.id: image for image in bench.store.pictures.images(round)}
    shards = {record.id: open_shard(bench.folder.path / record.path, record.checksum) for record in bench.store.pictures.shards(round)}
    compared = [
        c for c in comparisons_learnt_from(bench, round) if c.weight > 0 and not (c.is_tie and bench.config.objective.targets == "signed")
    ]
    if not compared:
        raise RunFolderError(f"round {round} has no comparison with a preference; nothing can be learnt from it (are all of them ties?)")
    by_prompt: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in compared:
        by_prompt[images[comparison.image_a].prompt_id].append(comparison)
    prompts = {image.prompt_id: image.prompt for image in images.values()}
    order = {prompt: row for row, prompt in enumerate(prompts)}
    condition = bench.policy.encode_prompts(list(prompts.values()))
    references = {
        shard: _reference(bench, round, shards[shard], [i for i in images.values() if i.shard_id == shard], order, condition, reference)
        for shard in shards
    }
    groups = [_group(order[prompt], by_prompt[prompt], images, shards, references) for prompt in prompts if prompt in by_prompt]
    return groups, condition


class MetricsLog:
    """metrics.jsonl and TensorBoard: one entry per update, none twice."""

    def __init__(self, bench: Workbench, round: int, first: int) -> None:
        self._bench, self._round, self._path = bench, round, bench.folder.metrics
        earlier = bench.folder.read_metrics()
        kept = [line for line in earlier if (line["round"], line["update"]) < (round, first)]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._step = len(kept)
        self.metrics: list[Metrics] = [line for line in kept if line["round"] == round]

    def __enter__(self) -> "MetricsLog":
        self._file = self._path.open("a")
        tracking = self._bench.config.tracking
        self._events = SummaryWriter(str(self._bench.folder.path / "tensorboard"), purge_step=self._step) if tracking.tensorboard else None
        self._wandb = _start_wandb(self._bench) if tracking.wandb else None
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()
        self._file.close()
        if self._events:
            self._events.close()
        if self._wandb:
            self._wandb.finish()

    def sync(self) -> None:
        """Bring the lines to disk, as must happen before a checkpoint that counts on them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def write(self, update: Update, metrics: Metrics) -> None:
        """Record one update."""
        self._file.write(json.dumps({"round": self._round, "update": update.number, "epoch": update.epoch, **metrics}) + "\n")
        self._file.flush()
        self.metrics.append(metrics)
        if self._events:
            for name, value in metrics.items():
                self._events.add_scalar(f"train/{name}", value, self._step)
        if self._wandb:
            self._wandb.log({f"train/{name}": value for name, value in metrics.items()}, step=self._step)
        self._step += 1


def _restore(bench: Workbench, round: int) -> tuple[int, dict[str, Tensor] | None]:
    """Give the trainer the newest state of the round; returns the updates already done and the moving-average reference."""
    moving = bench.config.objective.reference == "ema"
    checkpoints = [c for c in list_checkpoints(bench.folder.checkpoints) if (c.round, c.final) in ((round, False), (round - 1, True))]
    if not checkpoints:
        bench.stand_at(round)
        return 0, bench.policy.state() if moving else None
    newest = checkpoints[-1]
    tensors, _ = newest.load()
    bench.trainer.load_state(tensors)
    reference = {name.removeprefix(REFERENCE): value for name, value in tensors.items() if name.startswith(REFERENCE)}
    return 0 if newest.final else newest.update, reference if moving else None


def _save(bench: Workbench, round: int, update: int, *, final: bool, reference: dict[str, Tensor] | None) -> None:
    tensors = bench.trainer.state() | {REFERENCE + name: value for name, value in (reference or {}).items()}
    metadata: dict[str, object] = {"round": round, "update": update, "seed": bench.config.seed, "model": bench.config.model}
    save_checkpoint(bench.folder.checkpoints, round=round, update=update, final=final, tensors=tensors, metadata=metadata)


def _reference(
    bench: Workbench,
    round: int,
    shard: Shard,
    images: Sequence[ImageRecord],
    order: dict[int, int],
    condition: Condition,
    reference: dict[str, Tensor] | None,
) -> Tensor:
    """(T, B) reference log-probs of a shard: the sampler's own where it was the reference, else computed once and kept."""
    kind = bench.config.objective.reference
    if kind == "per_round" or round == 0:
        return shard.log_probs()
    cached = _cached_reference(shard)
    if cached is not None:
        return cached
    rows = condition.rows(torch.tensor([order[image.prompt_id] for image in sorted(images, key=lambda image: image.row)]))
    within = bench.policy.without_adapter() if kind == "fixed" else standing_in(bench.policy, reference or {})
    log_probs = reference_log_probs(bench.policy, bench.replay, shard, rows, max_rows=bench.config.training.max_rows, within=within)
    content = save({"log_probs": log_probs})
    write_atomically(shard.path.with_suffix(f".reference-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"), content)
    return log_probs


def _cached_reference(shard: Shard) -> Tensor | None:
    """The kept reference log-probs, if their bytes are those whose hash the file's name carries; a damaged cache is made anew."""
    for path in shard.path.parent.glob(f"{shard.path.stem}.reference-*.safetensors"):
        if sha256(path).startswith(path.stem.rpartition("-")[2]):
            return load_file(path)["log_probs"]
    return None


def _group(
    prompt: int, comparisons: list[Comparison], images: dict[int, ImageRecord], shards: dict[int, Shard], reference: dict[int, Tensor]
) -> PromptGroup:
    """Only images that take part in a comparison are kept, so that no network row is spent on others."""
    ids = sorted({i for c in comparisons for i in (c.image_a, c.image_b)})
    position = {image: k for k, image in enumerate(ids)}
    shard = images[ids[0]].shard_id
    rows = torch.tensor([images[i].row for i in ids])
    return PromptGroup(
        prompt=prompt,
        shard=shards[shard],
        rows=rows,
        pairs=torch.tensor([[position[c.image_a], position[c.image_b]] for c in comparisons]),
        targets=torch.tensor([c.target for c in comparisons]),
        weights=torch.tensor([c.weight for c in comparisons]),
        reference=reference[shard][:, rows],
    )


def _run_id(bench: Workbench) -> str:
    """The same for every command on one folder, so that W&B shows one run."""
    return hashlib.sha256(str(bench.folder.path.resolve()).encode()).hexdigest()[:16]


def _start_wandb(bench: Workbench) -> Any:
    return import_module("wandb").init(
        project="d3po",
        name=bench.folder.path.name,
        config=bench.config.model_dump(mode="json", exclude={"database"}),
        resume="allow",
        id=_run_id(bench),
    )
