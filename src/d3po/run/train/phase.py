"""The training phase: trains on a round's labels, with checkpoints from which a killed run continues."""

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from typing import Any

from torch import Tensor

from d3po.artifacts.checkpoints import list_checkpoints, under
from d3po.artifacts.files import GrowingFile, write_atomically
from d3po.artifacts.records import seal
from d3po.run.control import check_control
from d3po.run.opened import OpenRun
from d3po.run.session import Session
from d3po.run.train.dataset import load_round, share_references
from d3po.run.train.reference import References, reference_context
from d3po.run.train.rollback import ensure_undone, lr_scale_of
from d3po.run.train.states import moving_average_in, save_state
from d3po.training.events import EventFile
from d3po.training.guards import check_round, check_update
from d3po.training.reference import moving_average
from d3po.training.trainer import Metrics, Update


def train_round(session: Session, round: int) -> None:
    """Train on the round's labels up to the round's final checkpoint. A finished round is left as it is.

    Raises:
        TrainingStoppedError: a guard stopped the training, or a loss was not finite; checkpoints of earlier rounds are kept.
        RunEndedError: a person ended the run from the dashboard.
    """
    if session.run.distributed.lead(partial(ensure_undone, session, round)) or session.run.trained_rounds() > round:
        return
    first, references = _restore(session, round)
    share_references(session, round, references)
    groups, condition = session.run.distributed.first(partial(load_round, session, round, references))
    session.run.distributed.lead(lambda: session.run.folder.remember(session.run.store))  # before a checkpoint depends on the votes
    if not groups:
        session.run.narrator.say(f"round {round}: all pictures were rated alike, so nothing is trained in this round")
    updates = session.trainer.plan(len(groups), round)
    log = MetricsLog(session.run, round, first) if session.run.distributed.leads else None
    settings = session.run.config.training
    session.moved(None)
    count = sum(len(group.targets) if group.labels is None else len(group) for group in groups)
    said = f"{count} {'pairs' if session.run.needs.labels == 'pairs' else 'pictures'}"
    with session.run.narrator.bar(f"round {round}: training", total=len(updates)) as bar, log or nullcontext():
        bar.advance(first, said)

        def after_update(update: Update, metrics: Metrics) -> None:
            assert log is not None
            log.write(update, metrics)
            bar.advance(1, f"{said}  loss {metrics['loss']:.3f}  margin {metrics['margin']:+.4f}")
            session.run.journal.write(
                "update", round, number=update.number, of=len(updates), loss=metrics["loss"], margin=metrics["margin"]
            )
            check_control(session.run)
            for alarm in check_update(metrics, session.run.config.guards):
                session.run.raise_alarm(alarm, round)
            done = update.number + 1
            if done % settings.checkpoint_every == 0 and done < len(updates):
                log.sync()
                save_state(session, round, done, final=False, moving=references.moving)

        session.trainer.run(
            groups,
            condition,
            updates[first:],
            after_update=lambda update, metrics: session.run.distributed.lead(partial(after_update, update, metrics)),
            reference=partial(reference_context, session, references) if session.run.needs.reference != "none" else None,
            lr_scale=lr_scale_of(session.run, round),
        )
    session.run.distributed.lead(lambda: _end(session, round, len(updates), log, references.moving))
    session.moved(round + 1)


def _end(session: Session, round: int, updates: int, log: "MetricsLog | None", moving: dict[str, Tensor] | None) -> None:
    """Check the whole round with the guards, and save its final checkpoint."""
    for alarm in check_round(log.metrics if log else [], session.run.config.guards, reward_scale=session.run.objective.reward_scale):
        session.run.raise_alarm(alarm, round)
    if moving is not None:
        moving = moving_average(moving, session.policy.state(), session.run.config.objective.reference_decay)
    save_state(session, round, updates, final=True, moving=moving)


class MetricsLog:
    """Writes one entry for each update to metrics.jsonl, TensorBoard and Weights & Biases.

    Entries of the round from the update `first` on are dropped before, so that no update is written twice. Entries of later rounds stay.
    """

    def __init__(self, run: OpenRun, round: int, first: int) -> None:
        self._run, self._round, self._path = run, round, run.folder.metrics
        kept = [line for line in run.folder.read_metrics() if line["round"] != round or line["update"] < first]
        write_atomically(self._path, b"".join(_line(line) for line in kept))
        self._step = sum((line["round"], line["update"]) < (round, first) for line in kept)
        self._is_newest = self._step == len(kept)
        self.metrics: list[Metrics] = [{key: float(value) for key, value in line.items()} for line in kept if line["round"] == round]

    def __enter__(self) -> "MetricsLog":
        tracking = self._run.config.tracking
        with ExitStack() as opened:
            self._file = opened.enter_context(closing(GrowingFile(self._path)))
            self._events = None
            if tracking.tensorboard:
                events = EventFile(self._run.folder.path / "tensorboard", purge_step=self._step if self._is_newest else None)
                self._events = opened.enter_context(closing(events))
            self._wandb = self._run.wandb
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._opened:
            self.sync()

    def sync(self) -> None:
        """Flush the lines to disk. This must happen before a checkpoint that depends on them.

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


def _restore(session: Session, round: int) -> tuple[int, References]:
    """Load the newest state of the round into the trainer, and return the number of updates already done and the reference policies."""
    keeps_moving = session.run.config.objective.reference == "ema"
    comparable = session.run.config.adapter.method == "lora"  # a second copy of a fully trained network is not kept
    before = session.run.finals()[round - 1].load()[0] if round and comparable else {}
    start = under("policy.", before) or None
    newest = [c for c in list_checkpoints(session.run.folder.checkpoints) if (c.round, c.final) == (round, False)][-1:]
    if newest:
        tensors, _ = newest[0].load()
        session.trainer.load_state(tensors)
        return newest[0].update, References(start=start, moving=moving_average_in(tensors) if keeps_moving else None)
    session.load_round_weights(round)
    return 0, References(start=start, moving=(moving_average_in(before) or session.policy.state()) if keeps_moving else None)
