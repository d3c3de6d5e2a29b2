"""The training phase: a round's comparisons into updates, checkpointed so that a killed run continues where it was."""

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from typing import Any

from torch import Tensor

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.artifacts.files import GrowingFile, write_atomically
from d3po.artifacts.records import seal
from d3po.run.control import check_control
from d3po.run.train.dataset import load_round, share_references
from d3po.run.train.reference import References, reference_context
from d3po.run.train.rollback import lr_scale_of, stand_undone
from d3po.run.train.states import moving_average_in, save_state
from d3po.run.workbench import Workbench
from d3po.training.events import EventFile
from d3po.training.guards import check_round, check_update
from d3po.training.reference import moving_average
from d3po.training.trainer import Metrics, Update, under


def train_round(bench: Workbench, round: int) -> None:
    """Train on the round's comparisons up to the round's final checkpoint; a finished round is left as it is.

    Raises:
        TrainingStoppedError: a guard stopped it, or a loss was not finite; earlier rounds' checkpoints stand.
        RunEndedError: somebody ended the run from the dashboard.
    """
    if bench.distributed.lead(partial(stand_undone, bench, round)) or bench.trained_rounds() > round:
        return
    first, references = _restore(bench, round)
    share_references(bench, round, references)
    groups, condition = bench.distributed.first(partial(load_round, bench, round, references))
    bench.distributed.lead(lambda: bench.folder.remember(bench.store))  # before a checkpoint counts on the votes
    if not groups:
        bench.narrator.say(f"round {round}: all pictures were judged alike, so nothing is trained in it")
    updates = bench.trainer.plan(len(groups), round)
    log = MetricsLog(bench, round, first) if bench.distributed.leads else None
    settings = bench.config.training
    bench.moved(None)
    judged = sum(len(group.targets) if group.labels is None else len(group) for group in groups)
    said = f"{judged} {'pairs' if bench.trainer.needs.labels == 'pairs' else 'pictures'}"
    with bench.narrator.bar(f"round {round}: training", total=len(updates)) as bar, log or nullcontext():
        bar.advance(first, said)

        def after_update(update: Update, metrics: Metrics) -> None:
            assert log is not None
            log.write(update, metrics)
            bar.advance(1, f"{said}  loss {metrics['loss']:.3f}  margin {metrics['margin']:+.4f}")
            bench.journal.write("update", round, number=update.number, of=len(updates), loss=metrics["loss"], margin=metrics["margin"])
            check_control(bench)
            for alarm in check_update(metrics, bench.config.guards):
                bench.raise_alarm(alarm, round)
            done = update.number + 1
            if done % settings.checkpoint_every == 0 and done < len(updates):
                log.sync()
                save_state(bench, round, done, final=False, moving=references.moving)

        bench.trainer.run(
            groups,
            condition,
            updates[first:],
            after_update=lambda update, metrics: bench.distributed.lead(partial(after_update, update, metrics)),
            reference=partial(reference_context, bench, references) if bench.trainer.needs.reference != "none" else None,
            lr_scale=lr_scale_of(bench, round),
        )
    bench.distributed.lead(lambda: _end(bench, round, len(updates), log, references.moving))
    bench.moved(round + 1)


def _end(bench: Workbench, round: int, updates: int, log: "MetricsLog | None", moving: dict[str, Tensor] | None) -> None:
    """Look back on the round, and save what it made."""
    for alarm in check_round(log.metrics if log else [], bench.config.guards, reward_scale=bench.trainer.objective.reward_scale):
        bench.raise_alarm(alarm, round)
    if moving is not None:
        moving = moving_average(moving, bench.policy.state(), bench.config.objective.reference_decay)
    save_state(bench, round, updates, final=True, moving=moving)


class MetricsLog:
    """metrics.jsonl and TensorBoard: one entry per update, none twice. Where a round is trained again, later rounds' entries stay."""

    def __init__(self, bench: Workbench, round: int, first: int) -> None:
        self._bench, self._round, self._path = bench, round, bench.folder.metrics
        kept = [line for line in bench.folder.read_metrics() if line["round"] != round or line["update"] < first]
        write_atomically(self._path, b"".join(_line(line) for line in kept))
        self._step = sum((line["round"], line["update"]) < (round, first) for line in kept)
        self._is_newest = self._step == len(kept)
        self.metrics: list[Metrics] = [{key: float(value) for key, value in line.items()} for line in kept if line["round"] == round]

    def __enter__(self) -> "MetricsLog":
        tracking = self._bench.config.tracking
        with ExitStack() as opened:
            self._file = opened.enter_context(closing(GrowingFile(self._path)))
            self._events = None
            if tracking.tensorboard:
                events = EventFile(self._bench.folder.path / "tensorboard", purge_step=self._step if self._is_newest else None)
                self._events = opened.enter_context(closing(events))
            self._wandb = self._bench.wandb
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._opened:
            self.sync()

    def sync(self) -> None:
        """Bring the lines to disk, as must happen before a checkpoint that counts on them.

        Raises:
            StorageError: the disk is full or fails.
        """
        self._file.sync()

    def write(self, update: Update, metrics: Metrics) -> None:
        """Record one update.

        Raises:
            StorageError: the disk is full or not writable.
        """
        self._file.append(_line({"round": self._round, "update": update.number, "epoch": update.epoch, **metrics}))
        self.metrics.append(metrics)
        if self._events:
            self._events.write({f"train/{name}": value for name, value in metrics.items()}, step=self._step)
        if self._wandb:
            self._wandb.log({f"train/{name}": value for name, value in metrics.items()}, step=self._step)
        self._step += 1


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(seal(record)).encode() + b"\n"


def _restore(bench: Workbench, round: int) -> tuple[int, References]:
    """Give the trainer the newest state of the round; returns the updates already done and the policies to compare with."""
    keeps_moving = bench.config.objective.reference == "ema"
    comparable = bench.config.adapter.method == "lora"  # the weights of a network that is trained whole are not kept twice
    before = bench.finals()[round - 1].load()[0] if round and comparable else {}
    start = under("policy.", before) or None
    newest = [c for c in list_checkpoints(bench.folder.checkpoints) if (c.round, c.final) == (round, False)][-1:]
    if newest:
        tensors, _ = newest[0].load()
        bench.trainer.load_state(tensors)
        return newest[0].update, References(start=start, moving=moving_average_in(tensors) if keeps_moving else None)
    bench.load_round_weights(round)
    return 0, References(start=start, moving=(moving_average_in(before) or bench.policy.state()) if keeps_moving else None)
