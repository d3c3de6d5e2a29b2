"""A session: an open run with its model, its sampler and its trainer, whose weights can be set to any round."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from d3po.artifacts.embeddings import EmbeddingCache
from d3po.batch_sizer import BatchSizer
from d3po.config import RunConfig
from d3po.errors import ModelError, NonFiniteError
from d3po.models.base import AbstractPolicy, Condition, Embeddings, PolicySettings, SamplerSettings
from d3po.models.load import load_policy
from d3po.models.replay import Replay
from d3po.run.needs import check_model
from d3po.run.opened import OpenRun
from d3po.training.likelihood import likelihood_of
from d3po.training.trainer import AUTOCAST, Trainer


@dataclass
class Session:
    """An open run with its model, for phases that sample or train. Make one with `Session(open_run(folder))`; the model is loaded when first used."""

    run: OpenRun
    _round_loaded: int | None = field(default=None, init=False)
    """The number of rounds of training behind the policy's present weights. None: not set yet, or in the middle of a round."""
    _touched: bool = field(default=False, init=False)
    """Whether the policy's weights have changed since the model was loaded."""
    _length_checked: set[str] = field(default_factory=set[str], init=False)
    """Prompts whose length was already checked against the text encoders' limit."""

    @cached_property
    def policy(self) -> AbstractPolicy:
        """The run's model with its adapter."""
        run, config = self.run, self.run.config
        adapter = config.adapter
        lora = None if adapter.method == "full" else {"rank": adapter.rank, "alpha": adapter.alpha, "targets": adapter.targets}
        settings = policy_settings(config)
        policy = load_policy(config.model, lora=lora, seed=config.seed, settings=settings)
        for note in policy.notes if run.distributed.leads else ():
            run.narrator.say(note)
        self._say_what_is_cut(policy, [*run.folder.prompts(), *run.folder.held_out(), settings.negative_prompt])
        if config.hardware.text_encoders != "keep":
            same = replace(settings, decoding="whole", text_encoders="keep", divide="no", deepspeed="")
            made_by = {"model": config.model, **asdict(same)}
            policy.prompt_cache = EmbeddingCache(directory=run.folder.embeddings, made_by=made_by)
        policy.autocast = AUTOCAST[config.training.mixed_precision]
        if config.training.gradient_checkpointing:
            policy.enable_gradient_checkpointing()
        divided = config.hardware.divide != "no" and run.distributed.processes > 1
        if divided:
            policy.divide(run.distributed.device)
        if torch.cuda.is_available():
            policy.to(str(run.distributed.device))
        if config.hardware.channels_last:
            network: Any = policy.network
            network.to(memory_format=torch.channels_last)
            for weight in policy.trainable().values():  # these are saved in checkpoints, so they keep the default layout
                weight.data = weight.data.contiguous()
        if config.hardware.compile:
            policy.network.compile()
        if run.distributed.leads:
            run.journal.watch(policy.network, times=run.distributed.processes if divided else 1)
        return policy

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """Encode prompts for the model. A prompt that is too long for a text encoder is reported once.

        Raises:
            ModelError: a text encoder gives values that are not finite.
            NonFiniteError: the same after training.
        """
        self._say_what_is_cut(self.policy, prompts)
        condition = self.policy.encode_prompts(prompts)
        if isinstance(condition, Embeddings):
            for name, values in {**condition.negative, **condition.given}.items():
                self.finite(values, f"the text encoder ({name})")
        return condition

    def finite(self, values: Tensor, part: str) -> Tensor:
        """Return `values` unchanged if all are finite.

        Args:
            values: a tensor whose first dimension runs over pictures or prompts.
            part: the part of the model that gave them, for messages.

        Raises:
            ModelError: some values are infinite or nan, and nothing has been trained yet.
            NonFiniteError: the same after training, which is then the cause.
        """
        bad = int((~values.isfinite()).reshape(len(values), -1).any(dim=1).sum())
        if not bad:
            return values
        said = f"{part} of {self.run.config.model} gives values that are infinite or not a number, for {bad} of {len(values)} inputs"
        if self._round_loaded == 0 or not self._touched:
            raise ModelError(
                f"{said}; no picture is made of them. Are its weights intact? Half precision overflows in some models: try weights = 'bfloat16', "
                "or 'float32'"
            )
        raise NonFiniteError(f"{said}: training has gone too far. Lower training.learning_rate")

    def _say_what_is_cut(self, policy: AbstractPolicy, prompts: Sequence[str]) -> None:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._length_checked]
        self._length_checked.update(new)
        for line in policy.cut_prompts(new) if self.run.distributed.leads else ():
            self.run.narrator.say(line)

    @cached_property
    def replay(self) -> Replay:
        """The sampler of the run, with which steps are also replayed in training; checked against the objective's needs."""
        replay = make_replay(self.policy, self.run.config)
        check_model(self.run.config, replay)
        likelihood_of(self.policy, replay, self.run.needs).choices(self.run.config.training.timestep_range)
        return replay

    @cached_property
    def trainer(self) -> Trainer:
        """The run's trainer. Its optimizer state is not loaded yet."""
        replay = self.replay if self.run.config.training.guided else self.replay.unguided(self.policy)
        return Trainer(
            self.policy, replay, self.run.config, sampler=self.replay, distributed=self.run.distributed, say=self.run.narrator.say
        )

    @cached_property
    def sampling_sizer(self) -> BatchSizer:
        """Finds the batch size with which the network fits into memory without gradients."""
        return self._sizer("sampling")

    @cached_property
    def decoding_sizer(self) -> BatchSizer:
        """Finds how many pictures the decoder can take at once."""
        return self._sizer("decoding")

    @cached_property
    def encoding_sizer(self) -> BatchSizer:
        """Finds how many pictures the encoder can take at once."""
        return self._sizer("encoding")

    @cached_property
    def reference_sizer(self) -> BatchSizer:
        """Finds the batch size with which the reference policy's steps fit into memory."""
        return self._sizer("reference log-probs")

    def _sizer(self, what: str) -> BatchSizer:
        return BatchSizer(what, self.run.narrator.say, halve=self.run.config.hardware.may_halve)

    def close(self) -> None:
        """Close the run, and release the other processes of a sharded network."""
        if "policy" in self.__dict__ and self.policy.divided is not None and self.run.distributed.leads:
            self.policy.divided.release()
        self.run.close()

    def lend(self) -> None:
        """Compute this process's share of the first process's calls of a sharded network, until that one releases it."""
        assert self.policy.divided is not None
        self.policy.divided.lend()

    def load_round_weights(self, rounds: int) -> None:
        """Load the state after `rounds` rounds of training into the trainer and its policy."""
        if self._round_loaded == rounds:
            return
        if rounds > 0:
            tensors, _ = self.run.finals()[rounds - 1].load()
            self.trainer.load_state(tensors)
        elif self._touched:
            self.trainer.reset()
        self._round_loaded = rounds
        self._touched = self._touched or rounds > 0

    def moved(self, rounds: int | None) -> None:
        """Note that training has changed the weights: to those after `rounds` rounds, or (None) to those in the middle of a round."""
        self._round_loaded, self._touched = rounds, True


def make_replay(policy: AbstractPolicy, config: RunConfig) -> Replay:
    """Make the sampler that a configuration asks for, on the model's noise schedule."""
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
    """The settings of a configuration that apply to the model itself."""
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
