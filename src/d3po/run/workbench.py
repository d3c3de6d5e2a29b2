"""An opened run: the folder, its store, and the policy as it stands at any round."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor

from d3po.artifacts.checkpoints import CheckpointFile, list_checkpoints
from d3po.artifacts.embeddings import EmbeddingCache
from d3po.config import RunConfig
from d3po.errors import ModelError, NonFiniteError, TrainingStoppedError
from d3po.models.base import AbstractPolicy, Condition, Embeddings, PolicySettings, SamplerSettings
from d3po.models.load import load_policy
from d3po.objectives.registry import OBJECTIVES
from d3po.run.folder import RunFolder
from d3po.run.journal import RunJournal
from d3po.run.needs import check_model, check_needs
from d3po.run.progress import Narrator
from d3po.scorers.catalogue import Reward
from d3po.scorers.registry import load_criteria, load_reward
from d3po.store import Store
from d3po.text import fold
from d3po.training.batch_sizer import BatchSizer
from d3po.training.distributed import Distributed
from d3po.training.guards import Alarm
from d3po.training.likelihood import likelihood_of
from d3po.training.replay import Replay
from d3po.training.tracking import start_wandb
from d3po.training.trainer import AUTOCAST, Trainer

BASE = "base"
"""Label of the policy before any training."""


@dataclass(kw_only=True)
class Workbench:
    """Everything a phase needs; the policy is loaded when first used."""

    folder: RunFolder
    config: RunConfig
    narrator: Narrator
    scores: dict[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]], init=False)
    """What this process has measured of sampled images, by image id; a learnt judge is not asked twice."""
    _standing: int | None = field(default=None, init=False)
    """After how many rounds the policy stands; None: as loaded, or in the middle of a round."""
    _touched: bool = field(default=False, init=False)
    _read: set[str] = field(default_factory=set[str], init=False)
    """Prompts that were looked at for their length."""

    def __post_init__(self) -> None:
        check_needs(self.config)

    @cached_property
    def store(self) -> Store:
        """The run's database."""
        return self.folder.store(self.config.database)

    @cached_property
    def held_out_prompts(self) -> frozenset[int]:
        """Ids in the store of the prompts that count as held-out ones: they fold alike."""
        held_out = set(map(fold, self.folder.held_out()))
        return frozenset(id for id, prompt in self.store.pictures.prompts().items() if fold(prompt) in held_out)

    @cached_property
    def journal(self) -> RunJournal:
        """What the run tells its dashboard."""
        return RunJournal(lambda: self.store.journal)

    @cached_property
    def criteria(self) -> tuple[Reward, ...]:
        """What pictures are measured by, as `feedback.reward` names it; loaded once, for judging and evaluating."""
        return load_criteria(self.config.feedback.reward, self.narrator.say)

    @cached_property
    def held_out_judge(self) -> Reward | None:
        """The judge that is only measured by, if the run has one; loaded once."""
        name = self.config.evaluation.held_out_reward
        return load_reward(name, self.narrator.say) if name else None

    @cached_property
    def wandb(self) -> Any:
        """The run at Weights & Biases, where `tracking.wandb` is on, else None."""
        return start_wandb(self.folder.path, self.config) if self.config.tracking.wandb else None

    @cached_property
    def distributed(self) -> Distributed:
        """The processes of this run."""
        return Distributed(divided=self.config.hardware.divide != "no")

    @cached_property
    def policy(self) -> AbstractPolicy:
        """The run's model with its adapter."""
        adapter = self.config.adapter
        lora = None if adapter.method == "full" else {"rank": adapter.rank, "alpha": adapter.alpha, "targets": adapter.targets}
        settings = policy_settings(self.config)
        policy = load_policy(self.config.model, lora=lora, seed=self.config.seed, settings=settings)
        for note in policy.notes if self.distributed.leads else ():
            self.narrator.say(note)
        self._say_what_is_cut(policy, [*self.folder.prompts(), *self.folder.held_out(), settings.negative_prompt])
        if self.config.hardware.text_encoders != "keep":
            same = replace(settings, decoding="whole", text_encoders="keep", divide="no", deepspeed="")
            made_by = {"model": self.config.model, **asdict(same)}
            policy.prompt_cache = EmbeddingCache(directory=self.folder.embeddings, made_by=made_by)
        policy.autocast = AUTOCAST[self.config.training.mixed_precision]
        if self.config.training.gradient_checkpointing:
            policy.enable_gradient_checkpointing()
        divided = self.config.hardware.divide != "no" and self.distributed.processes > 1
        if divided:
            policy.divide(self.distributed.device)
        if torch.cuda.is_available():
            policy.to(str(self.distributed.device))  # not run here: there was no GPU
        if self.config.hardware.channels_last:
            network: Any = policy.network
            network.to(memory_format=torch.channels_last)
            for weight in policy.trainable().values():  # these are saved, and so stay as they are
                weight.data = weight.data.contiguous()
        if self.config.hardware.compile:
            policy.network.compile()
        if self.distributed.leads:
            self.journal.watch(policy.network, times=self.distributed.processes if divided else 1)
        return policy

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """What the model reads in prompts; which of them it does not read to their end is said once.

        Raises:
            ModelError: a text encoder gives values that are not finite.
        """
        self._say_what_is_cut(self.policy, prompts)
        condition = self.policy.encode_prompts(prompts)
        if isinstance(condition, Embeddings):
            for name, values in {**condition.negative, **condition.given}.items():
                self.finite(values, f"the text encoder ({name})")
        return condition

    def finite(self, values: Tensor, part: str) -> Tensor:
        """`values` as they are, each row of which belongs to a picture or prompt.

        Raises:
            ModelError: some are infinite or no numbers, and nothing has been trained yet.
            NonFiniteError: the same after training, which is then at fault.
        """
        bad = int((~values.isfinite()).reshape(len(values), -1).any(dim=1).sum())
        if not bad:
            return values
        said = f"{part} of {self.config.model} gives values that are infinite or no numbers, in {bad} of {len(values)} rows"
        if self._standing == 0 or not self._touched:
            raise ModelError(
                f"{said}; no picture is made of them. Are its weights whole? Half precision overflows in some models: try weights = 'bfloat16', "
                "or 'float32'"
            )
        raise NonFiniteError(f"{said}: training has gone too far. Lower training.learning_rate")

    def _say_what_is_cut(self, policy: AbstractPolicy, prompts: Sequence[str]) -> None:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._read]
        self._read.update(new)
        for line in policy.cut_prompts(new) if self.distributed.leads else ():
            self.narrator.say(line)

    @cached_property
    def replay(self) -> Replay:
        """How the run samples, and so how it replays; held against what the run wants of it."""
        replay = make_replay(self.policy, self.config)
        check_model(self.config, replay)
        likelihood_of(self.policy, replay, OBJECTIVES[self.config.objective.name].needs).choices(self.config.training.timestep_range)
        return replay

    @cached_property
    def trainer(self) -> Trainer:
        """The run's trainer, optimizer state not yet loaded."""
        replay = self.replay if self.config.training.guided else self.replay.unguided(self.policy)
        return Trainer(self.policy, replay, self.config, sampler=self.replay, distributed=self.distributed, say=self.narrator.say)

    @cached_property
    def sampling_sizer(self) -> BatchSizer:
        """How many rows of the network fit without a gradient."""
        return self._sizer("sampling")

    @cached_property
    def decoding_sizer(self) -> BatchSizer:
        """How many pictures fit in the decoder."""
        return self._sizer("decoding")

    @cached_property
    def encoding_sizer(self) -> BatchSizer:
        """How many pictures fit in the encoder."""
        return self._sizer("encoding")

    @cached_property
    def reference_sizer(self) -> BatchSizer:
        """How many rows of the network fit where the reference is asked."""
        return self._sizer("reference log-probs")

    def _sizer(self, what: str) -> BatchSizer:
        return BatchSizer(what, self.narrator.say, halve=self.config.hardware.may_halve)

    def raise_alarm(self, alarm: Alarm, round: int) -> None:
        """Say that a guard fired.

        Raises:
            TrainingStoppedError: it is one that stops.
        """
        self.journal.alarm(alarm, round)
        if alarm.stops:
            raise TrainingStoppedError(alarm.message)
        self.narrator.say(f"warning: {alarm.message}")

    def close(self) -> None:
        """Give the database's connections back, and let processes go that lend their part of the network."""
        if "policy" in self.__dict__ and self.policy.divided is not None and self.distributed.leads:
            self.policy.divided.release()
        if self.__dict__.get("wandb") is not None:
            self.wandb.finish()
        if "store" in self.__dict__:
            self.store.close()

    def lend(self) -> None:
        """Compute this process's share of the first one's calls of a divided network, until it lets this one go."""
        assert self.policy.divided is not None
        self.policy.divided.lend()

    def finals(self) -> list[CheckpointFile]:
        """The final checkpoint of every trained round, in order."""
        return final_checkpoints(self.folder)

    def trained_rounds(self) -> int:
        """How many rounds have been trained to their end."""
        return len(self.finals())

    def load_round_weights(self, rounds: int) -> None:
        """Give the trainer and its policy the state after `rounds` rounds of training."""
        if self._standing == rounds:
            return
        if rounds > 0:
            tensors, _ = self.finals()[rounds - 1].load()
            self.trainer.load_state(tensors)
        elif self._touched:
            self.trainer.reset()
        self._standing = rounds
        self._touched = self._touched or rounds > 0

    def moved(self, rounds: int | None) -> None:
        """Say that training has changed the state: to the end of `rounds` rounds, or (None) to somewhere in between."""
        self._standing, self._touched = rounds, True


def final_checkpoints(folder: RunFolder) -> list[CheckpointFile]:
    """The final checkpoint of every trained round, in order."""
    by_round = {checkpoint.round: checkpoint for checkpoint in list_checkpoints(folder.checkpoints) if checkpoint.final}
    return [by_round[round] for round in takewhile(by_round.__contains__, count())]


def make_replay(policy: AbstractPolicy, config: RunConfig) -> Replay:
    """The sampler that a configuration asks for, on a model's own schedule."""
    sampling = config.sampling
    settings = SamplerSettings(
        steps=sampling.steps,
        kind=sampling.sampler,
        eta=sampling.eta,
        noise_level=sampling.noise_level,
        spacing=None if sampling.spacing == "model" else sampling.spacing,
        last_step=sampling.last_step,
        zero_terminal_snr=sampling.zero_terminal_snr,
    )
    sampler = policy.sampler(settings)
    shapes = [policy.latent_shape_of(*size) for size in sampling.buckets]
    return Replay(
        transition=sampler.transition,
        grid=sampler.grid,
        guidance=sampling.guidance,
        guidance_range=sampling.guidance_range,
        reduce=config.objective.log_prob,
        samplers={shape: policy.sampler(replace(settings, latent_shape=shape)) for shape in shapes},
    )


def policy_settings(config: RunConfig) -> PolicySettings:
    """What a configuration asks of the model itself."""
    sampling = config.sampling
    return PolicySettings(
        guidance=sampling.guidance_kind,
        negative_prompt=sampling.negative_prompt,
        max_sequence_length=sampling.max_sequence_length,
        width=sampling.width,
        height=sampling.height,
        parts=config.parts,
        weights=config.weights,
        arithmetic=config.arithmetic,
        decoding=config.hardware.decoding,
        text_encoders=config.hardware.text_encoders,
        divide=config.hardware.divide,
        deepspeed=config.hardware.deepspeed,
        start_from=config.adapter.start_from,
        inpaint_image=sampling.inpaint_image,
        inpaint_mask=sampling.inpaint_mask,
    )
