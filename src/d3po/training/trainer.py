"""The trainer: one accelerate loop that turns comparisons into updates of the policy, whatever the objective."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from d3po.config import RunConfig
from d3po.diffusion.noise import seeded
from d3po.errors import ConfigError, NonFiniteError
from d3po.models.base import AbstractPolicy, Condition
from d3po.objectives.d3po import D3PO
from d3po.objectives.metrics import gaussian_kl, pair_metrics
from d3po.training.brake import Brake
from d3po.training.data import PromptGroup, StepBatch, chunk_groups, step_batch
from d3po.training.replay import Replay

BANDS = ("early", "middle", "late")
"""Thirds of the denoising steps, from noise to picture."""

AUTOCAST = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Update:
    """One planned optimizer step: which prompts, which denoising steps."""

    number: int
    epoch: int
    groups: list[int]
    steps: Int[Tensor, " S"]


class Trainer:
    """Moves a policy by preferences; holds the optimizer and, optionally, averaged weights."""

    def __init__(self, policy: AbstractPolicy, replay: Replay, config: RunConfig) -> None:
        self.policy, self.replay, self.config = policy, replay, config
        objective = config.objective
        self.objective = D3PO(beta=objective.beta, clip=objective.clip, clip_range=objective.clip_range, targets=objective.targets)
        settings = config.training
        self.accelerator = _accelerator(settings.mixed_precision)
        self.optimizer = torch.optim.AdamW(
            policy.trainable().values(),
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            weight_decay=settings.weight_decay,
        )
        self._stepper = self.accelerator.prepare(self.optimizer)
        self.average = policy.state() if settings.policy_ema else None
        self._step_weights = step_weights(replay, balanced=objective.step_weighting == "balanced")
        self._dimensions = math.prod(policy.latent_shape)
        self._brake = Brake(target=settings.target_kl)

    def plan(self, count: int, round: int) -> list[Update]:
        """The round's updates over `count` prompt groups: a function of the seed, the round and the settings alone."""
        settings = self.config.training
        trainable = trainable_steps(self.replay, settings.timestep_range)
        if len(trainable) == 0:
            raise ConfigError(
                f"training.timestep_range is {list(settings.timestep_range)}, which holds none of the {len(self.replay.grid)} sampled "
                f"timesteps that have a density ({self.replay.grid.timesteps.tolist()}); widen it"
            )
        chosen = max(1, math.ceil(settings.timestep_fraction * len(trainable)))
        updates: list[Update] = []
        for epoch in range(settings.epochs):
            order = torch.randperm(count, generator=seeded(self.config.seed, "order", round, epoch)).tolist()
            for start in range(0, count, settings.prompts_per_update):
                number = len(updates)
                drawn = torch.randperm(len(trainable), generator=seeded(self.config.seed, "steps", round, number))
                steps = trainable[drawn[:chosen].sort().values]
                updates.append(Update(number=number, epoch=epoch, groups=order[start : start + settings.prompts_per_update], steps=steps))
        return updates

    def run(
        self,
        groups: Sequence[PromptGroup],
        condition: Condition,
        updates: Sequence[Update],
        *,
        after_update: Callable[[Update, Metrics], None],
    ) -> None:
        """Carry out the planned updates in order; `condition` has one row per prompt of the round.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the weights are still those of the update before.
        """
        for update in updates:
            metrics = self.update([groups[i] for i in update.groups], condition, update.steps)
            after_update(update, metrics)

    def update(self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"]) -> Metrics:
        """One optimizer step on all pairs of `groups` at `steps`; the loss is the weighted mean over pairs and steps.

        K images of a prompt cost K network rows per step, however many pairs they form. How the rows are cut into network
        calls (`training.max_rows`) does not change the result.
        """
        self.optimizer.zero_grad()
        total = float(sum(group.weights.sum() for group in groups)) * len(steps)
        sums = MetricSums(len(self.replay.grid))
        for chunk in chunk_groups(groups, self.config.training.max_rows):
            images = sum(len(group) for group in chunk)
            for part in steps.split(max(1, self.config.training.max_rows // images)):
                self._accumulate(chunk, condition, step_batch(chunk, part), total, sums)
        norm = float(self.accelerator.clip_grad_norm_(self.policy.trainable().values(), self.config.training.max_grad_norm) or 0.0)
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            raise NonFiniteError(
                f"the gradient norm is {norm}; the update was not made. Lower training.learning_rate, or objective.beta where log_prob = 'sum'"
            )
        metrics = self._with_kl(sums.means()) | {"gradient_norm": norm}
        metrics["learning_rate"] = self._set_learning_rate(self._brake.share(metrics["kl"]))
        self._stepper.step()
        if self.average is not None:
            self._update_average(self.average)
        return metrics

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed trainer needs, as flat tensors; random draws follow from the seed and need no state."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.policy.trainable().items():
            tensors[f"policy.{name}"] = parameter.detach().cpu()
            moments = self.optimizer.state.get(parameter, {})
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if key in moments:
                    tensors[f"adam.{key}.{name}"] = moments[key].cpu()
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        tensors["brake.kl"] = torch.tensor(self._brake.kl, dtype=torch.float64)
        return {name: value.contiguous().clone() for name, value in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from `state()` of an earlier process."""
        self.policy.load_state(_under("policy.", tensors))
        self._brake.kl = float(tensors["brake.kl"])
        for name, parameter in self.policy.trainable().items():
            moments = {key: tensors[f"adam.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step") if f"adam.{key}.{name}" in tensors}
            if moments:
                self.optimizer.state[parameter] = {
                    key: value.clone() if key == "step" else value.clone().to(parameter.device) for key, value in moments.items()
                }
        if self.average is not None:
            self.average = _under("average.", tensors)

    def _accumulate(self, groups: Sequence[PromptGroup], condition: Condition, batch: StepBatch, total: float, sums: "MetricSums") -> None:
        prompts = torch.tensor([group.prompt for group in groups for _ in range(len(group))])
        log_probs = self.replay.log_probs(self.policy, batch.x_t, batch.x_next, batch.steps, condition.rows(prompts))
        ratios = log_probs - batch.reference.to(log_probs)
        pairs, targets, weights = _pairs(groups)
        a, b = ratios[:, pairs[:, 0]], ratios[:, pairs[:, 1]]
        target = targets.to(ratios).expand_as(a)
        scale = self._step_weights[batch.steps].to(ratios)[:, None]
        losses = self.objective(scale * a, scale * b, target)
        loss = (losses * weights.to(ratios)).sum() / total
        if not torch.isfinite(loss):
            bad = int((~torch.isfinite(losses)).sum())
            raise NonFiniteError(
                f"{bad} of {losses.numel()} pair losses are not finite (largest |log-ratio| {float(ratios.detach().abs().max()):.3g}); "
                "the update was not made. Lower training.learning_rate or objective.beta"
            )
        self.accelerator.backward(loss)
        sums.add(
            batch.steps,
            weights,
            pair_metrics(self.objective, losses, a, b, target, scale),
        )

    def _with_kl(self, metrics: Metrics) -> Metrics:
        """The metrics with squared log-ratios turned into KLs, in nats per latent dimension."""
        unit = self._dimensions if self.config.objective.log_prob == "mean" else 1
        square = "square_log_ratio"
        return {
            name.replace(square, "kl"): gaussian_kl(value * unit**2) / self._dimensions if name.startswith(square) else value
            for name, value in metrics.items()
        }

    def _set_learning_rate(self, share: float) -> float:
        rate = share * self.config.training.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _update_average(self, average: dict[str, Tensor]) -> None:
        for name, parameter in self.policy.trainable().items():
            average[name].lerp_(parameter.detach().cpu(), 1 - self.config.training.policy_ema)


class MetricSums:
    """Weighted means of per-pair metrics, over all steps and by band of steps."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, steps: Int[Tensor, " S"], weights: Float[Tensor, " P"], metrics: dict[str, Float[Tensor, "S P"]]) -> None:
        """Add the metrics of S steps and P pairs."""
        for name, values in metrics.items():
            by_step = (values.cpu() * weights).sum(dim=1).tolist()
            for step, value in zip(steps.tolist(), by_step, strict=True):
                for key in (name, f"{name}/{BANDS[step * len(BANDS) // self._num_steps]}"):
                    self._sums[key] = self._sums.get(key, 0.0) + value
                    self._weights[key] = self._weights.get(key, 0.0) + float(weights.sum())

    def means(self) -> Metrics:
        """Every metric's mean; a band that was not trained is absent."""
        return {key: self._sums[key] / self._weights[key] for key in sorted(self._sums)}


def _accelerator(mixed_precision: str) -> Accelerator:
    try:
        return Accelerator(mixed_precision=mixed_precision)
    except ValueError as error:
        raise ConfigError(
            f"training.mixed_precision is {mixed_precision!r}, which this device cannot do: {error}; set it to 'no' or 'bf16'"
        ) from error


def trainable_steps(replay: Replay, timestep_range: tuple[int, int]) -> Int[Tensor, " S"]:
    """Positions of the grid's steps that have a density and whose timestep lies in the range, ends included."""
    low, high = timestep_range
    timesteps = replay.grid.timesteps
    return (replay.transition.stochastic(replay.grid) & (timesteps >= low) & (timesteps <= high)).nonzero().flatten()


def step_weights(replay: Replay, *, balanced: bool) -> Float[Tensor, " T"]:
    """Factor on each step's log-ratio: 1, or the inverse of its sensitivity, scaled to mean 1 over the stochastic steps."""
    sensitivity = replay.transition.sensitivity(replay.grid)
    if not balanced:
        return torch.ones_like(sensitivity)
    inverse = torch.where(sensitivity > 0, 1 / sensitivity.clamp(min=1e-12), 0.0)
    return inverse / inverse[sensitivity > 0].mean()


def _pairs(groups: Sequence[PromptGroup]) -> tuple[Int[Tensor, "P 2"], Float[Tensor, " P"], Float[Tensor, " P"]]:
    """All pairs of all groups as positions in the images laid side by side."""
    offsets = [0]
    for group in groups:
        offsets.append(offsets[-1] + len(group))
    pairs = torch.cat([group.pairs + offset for group, offset in zip(groups, offsets, strict=False)])
    return pairs, torch.cat([group.targets for group in groups]), torch.cat([group.weights for group in groups])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
