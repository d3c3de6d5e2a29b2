"""The trainer: one accelerate loop that turns comparisons and labels into updates of the policy, for every objective."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from d3po.artifacts.checkpoints import under
from d3po.batch_sizer import BatchSizer
from d3po.config import RunConfig
from d3po.diffusion.noise import seeded
from d3po.errors import ConfigError, NonFiniteError
from d3po.models.base import AbstractPolicy, Condition
from d3po.models.replay import Replay
from d3po.objectives.base import ImageTerms, PairObjective
from d3po.objectives.metrics import image_metrics, pair_metrics
from d3po.objectives.registry import OBJECTIVES, build
from d3po.objectives.safeguard import PairProducts
from d3po.training.data import GroupLabels, PromptGroup, chunk_groups, mean_weight
from d3po.training.distributed import Distributed
from d3po.training.kl_controller import KLController
from d3po.training.likelihood import NoiseKey, Reference, StepTerms, likelihood_of, prompt_indices
from d3po.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state

BANDS = ("early", "middle", "late")
"""Thirds of the denoising steps, from noise to picture."""

AUTOCAST = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}

Metrics = dict[str, float]

Call = tuple[list[PromptGroup], Int[Tensor, " _"]]
"""One network call of an update: the prompt groups and the steps that it evaluates together."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Update:
    """One planned optimizer step: its prompt groups and its denoising steps."""

    round: int
    number: int
    epoch: int
    groups: list[int]
    steps: Int[Tensor, " S"]
    """Positions in the sampler's grid; for objectives that read pictures alone, timesteps."""


class Trainer:
    """Trains a policy on preferences. Holds the optimizer and, if `training.policy_ema` is on, the averaged weights."""

    def __init__(
        self,
        policy: AbstractPolicy,
        replay: Replay,
        config: RunConfig,
        *,
        sampler: Replay | None = None,
        distributed: Distributed | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.policy, self.replay, self.config = policy, replay, config
        objective, settings = config.objective, config.training
        self.objective = build(objective.name, **objective.settings.model_dump())
        reads_products = isinstance(self.objective, PairObjective) and self.objective.reads_products
        self.needs = replace(OBJECTIVES[objective.name].needs, products=reads_products)
        self.likelihood = likelihood_of(policy, replay, self.needs, sampler)
        self._measures = self.needs.reference != "none"
        self.distributed = distributed or Distributed()  # before accelerate's own state, which would take its own idea of patience
        self.accelerator = _accelerator(settings.mixed_precision)
        self._sizer = BatchSizer("training", say, halve=config.hardware.may_halve)
        self.optimizer = make_optimizer(
            settings.optimizer,
            policy.trainable().values(),
            learning_rate=settings.learning_rate,
            betas=settings.adam_betas,
            weight_decay=settings.weight_decay,
        )
        self._stepper = self.accelerator.prepare(self.optimizer)
        self.average = policy.state() if settings.policy_ema else None
        self._step_weights = step_weights(replay, balanced=objective.step_weighting == "balanced")
        self._kl_controller = KLController(target=settings.target_kl)
        self._initial = None if config.adapter.method == "full" else policy.state()
        self._lr_scale = 1.0

    def plan(self, count: int, round: int) -> list[Update]:
        """Plan the round's updates over `count` prompt groups. The plan depends on the seed, the round and the settings alone."""
        settings = self.config.training
        choices = self.likelihood.choices(settings.timestep_range)
        drawn = self.likelihood.count(settings.timestep_fraction, len(choices))
        updates: list[Update] = []
        for epoch in range(settings.epochs):
            order = torch.randperm(count, generator=seeded(self.config.seed, "order", round, epoch)).tolist()
            for start in range(0, count, settings.prompts_per_update):
                number = len(updates)
                places = torch.randperm(len(choices), generator=seeded(self.config.seed, "steps", round, number))[:drawn]
                steps = choices[places.sort().values]
                chosen = order[start : start + settings.prompts_per_update]
                updates.append(Update(round=round, number=number, epoch=epoch, groups=chosen, steps=steps))
        return updates

    def run(
        self,
        groups: Sequence[PromptGroup],
        condition: Condition,
        updates: Sequence[Update],
        *,
        after_update: Callable[[Update, Metrics], None],
        reference: Reference | None = None,
        lr_scale: float = 1.0,
    ) -> None:
        """Carry out the planned updates in order.

        Args:
            groups: all prompt groups of the round.
            condition: the embedded prompts of the round, one a prompt.
            updates: the updates of `plan` that remain.
            after_update: called after each update, with the update and its metrics.
            reference: makes a context in which the policy has the weights of the round's reference; by default the reference is the pretrained model.
            lr_scale: factor of the learning rate, in addition to the KL controller's factor.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; the weights are still those of the previous update.
        """
        self._lr_scale = lr_scale
        if reference is not None:
            self.likelihood.compare_with(reference)
        for update in updates:
            self._measures = self.needs.reference != "none" or looks_back(self.config, last=update is updates[-1])
            noise_key = (self.config.seed, update.round, update.number)
            mine = [groups[i] for i in update.groups]
            metrics = self.update(mine, condition, update.steps, noise_key=noise_key, usual=mean_weight(groups))
            after_update(update, metrics)

    def update(
        self,
        groups: Sequence[PromptGroup],
        condition: Condition,
        steps: Int[Tensor, " S"],
        *,
        noise_key: NoiseKey = (0, 0, 0),
        usual: float | None = None,
    ) -> Metrics:
        """Make one optimizer step on all comparisons or labels of `groups` at `steps`, and return its metrics.

        The loss is the weighted sum over comparisons (or labels), divided by `usual` times the number of prompts, and averaged over steps. `usual` is
        the mean weight of a prompt in the round (`mean_weight`), by default in `groups`. So the gradient is the mean of the gradients that each prompt
        would give alone, and a comparison counts its own weight, whatever else is in the update.

        K images of a prompt cost K network evaluations a step, however many pairs they form. How these are batched into network calls
        (`training.micro_batch_size`) does not change the result, up to rounding. Images that were branched at one step are trained at that step alone.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; the update was not made.
        """
        share = self._share(groups, steps)
        mean = self._mean_log_ratio(share, condition, noise_key) if self.needs.batch_mean else 0.0
        usual = mean_weight(groups) if usual is None else usual
        total = usual * sum(len(steps) if group.branch is None else 1 for group in groups)
        sums = self._gradients(share, condition, noise_key, total, mean)
        norm = float(self.accelerator.clip_grad_norm_(self.policy.trainable().values(), self.config.training.max_grad_norm) or 0.0)
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            raise NonFiniteError(
                f"the gradient norm is {norm}; the update was not made. Lower training.learning_rate, or the objective's beta where log_prob = 'sum'"
            )
        metrics = sums.means() | {"gradient_norm": norm}
        metrics["learning_rate"] = self._set_learning_rate(
            self._kl_controller.share(metrics["kl"]) if self.needs.reference != "none" else 1.0
        )
        self._stepper.step()
        if self.average is not None:
            self._update_average(self.average)
        return metrics

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed trainer needs, as tensors by name. Random draws follow from the seed and need no state."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.policy.trainable().items():
            tensors[f"policy.{name}"] = parameter.detach().cpu()
        tensors |= optimizer_state(self.optimizer, self.policy.trainable())
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        tensors["kl_controller.kl"] = torch.tensor(self._kl_controller.kl, dtype=torch.float64)
        return {name: value.contiguous().clone() for name, value in tensors.items()}

    def reset(self) -> None:
        """Return to the state before any training: initial weights, empty optimizer, no running KL.

        Raises:
            RuntimeError: the whole network is trained, of which no copy is kept; open the run again.
        """
        if self._initial is None:
            raise RuntimeError("a network that is trained whole cannot go back to the base; open the run anew")
        self.policy.load_state(self._initial)
        self.optimizer.state.clear()
        self._kl_controller.kl = 0.0
        self.average = None if self.average is None else self.policy.state()

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state()` of an earlier process returned."""
        self.policy.load_state(under("policy.", tensors))
        self._kl_controller.kl = float(
            tensors["kl_controller.kl"] if "kl_controller.kl" in tensors else tensors["brake.kl"]
        )  # its former name
        load_optimizer_state(self.optimizer, self.policy.trainable(), tensors)
        if self.average is not None:
            self.average = under("average.", tensors)

    def _share(self, groups: Sequence[PromptGroup], steps: Int[Tensor, " S"]) -> list[Call]:
        """This process's share of an update's network calls, which are cut small enough that every process has one where that is possible."""
        rows = sum(len(group) * (len(steps) if group.branch is None else 1) for group in groups)
        return self.distributed.share(
            list(self._calls(groups, steps, min(self.config.training.micro_batch_size, -(-rows // self.distributed.size))))
        )

    def _calls(self, groups: Sequence[PromptGroup], steps: Int[Tensor, " S"], rows: int) -> Iterator[Call]:
        """Cut `groups` and `steps` into network calls whose batches have at most `rows` elements, one an image and step."""
        for chunk in chunk_groups(groups, rows):
            branch = chunk[0].branch
            theirs = steps if branch is None else torch.tensor([branch])
            for part in theirs.split(max(1, rows // sum(len(group) for group in chunk))):
                yield chunk, part

    def _fitted(self, work: Callable[[list[Call]], T], share: Sequence[Call]) -> T:
        """Run `work` on this process's calls. If they do not fit into memory, cut them smaller and start over."""
        largest = max((sum(len(group) for group in chunk) * len(part) for chunk, part in share), default=1)
        return self._sizer.run(lambda rows: work([call for c in share for call in self._calls(*c, rows)]), largest)

    @torch.no_grad()
    def _mean_log_ratio(self, share: Sequence[Call], condition: Condition, noise_key: NoiseKey) -> float:
        def ratios(calls: list[Call]) -> list[float]:
            read = (self.likelihood.read(chunk, condition, part, noise_key, measures=False) for chunk, part in calls)
            return [ratio for evidence in read for ratio in evidence.log_ratio.flatten().tolist()]

        every = [ratio for theirs in self.distributed.gather(self._fitted(ratios, share)) for ratio in theirs]
        return sum(every) / len(every)

    def _gradients(self, share: Sequence[Call], condition: Condition, noise_key: NoiseKey, total: float, mean: float) -> "MetricSums":
        """Put the update's gradient, summed over all processes, into the parameters. Return the metrics of all processes.

        Raises:
            NonFiniteError: a loss is not finite in at least one process.
        """

        def accumulate(calls: list[Call]) -> MetricSums:
            self.optimizer.zero_grad()
            sums = MetricSums()
            for chunk, part in calls:
                evidence = self.likelihood.read(chunk, condition, part, noise_key, measures=self._measures)
                self._accumulate(chunk, evidence, part, total, mean, sums)
            return sums

        mine: MetricSums | NonFiniteError
        try:
            mine = self._fitted(accumulate, share)
        except NonFiniteError as error:
            mine = error
        every = self.distributed.gather(mine)
        for outcome in every:
            if isinstance(outcome, NonFiniteError):
                raise outcome
        self.distributed.add_gradients(self.policy.trainable().values())
        return MetricSums.together([sums for sums in every if isinstance(sums, MetricSums)])

    def _accumulate(
        self, groups: Sequence[PromptGroup], evidence: StepTerms, steps: Tensor, total: float, mean: float, sums: "MetricSums"
    ) -> None:
        """Add the gradient and the metrics of one network call.

        For objectives on pairs, step weighting multiplies the log-ratios that are compared. For objectives on images it multiplies the whole loss, since
        a policy gradient needs the unscaled ratio exp(log-ratio), and its KL term must keep its proportion to the gain.
        """
        ratios = evidence.log_ratio
        scale = self._scale(steps).to(ratios)
        if isinstance(self.objective, PairObjective):
            pairs, targets, weights = _pairs(groups)
            a, b = ratios[:, pairs[:, 0]], ratios[:, pairs[:, 1]]
            target = targets.to(ratios).expand_as(a)
            if evidence.products is not None:
                a, b = self.objective.safeguarded(a, b, target, _pair_products(evidence.products, pairs))
            losses = self.objective(scale * a, scale * b, target)
            metrics = pair_metrics(self.objective, losses, a, b, target, scale)
            drift = None if evidence.drift is None else evidence.drift[:, pairs].mean(dim=2)
        else:
            labels = _labels(groups)
            weights = labels.weights
            nats = math.prod(groups[0].latent_shape) if self.config.objective.log_prob == "sum" else 1  # of the log-probs' unit
            kl = None if evidence.kl is None else evidence.kl * nats
            terms = ImageTerms(
                log_ratio=ratios,
                value=labels.values.to(ratios),
                prompts=prompt_indices(groups).to(ratios.device),
                kl=kl,
                batch_mean=mean,
                change=evidence.change,
                reference_error=evidence.reference_error,
            )
            losses = scale * self.objective(terms)
            metrics = image_metrics(self.objective, losses, terms, labels.signs.to(ratios))
            drift = evidence.drift
        loss = (losses * weights.to(ratios)).sum() / total
        if not torch.isfinite(loss):
            bad = int((~torch.isfinite(losses)).sum())
            raise NonFiniteError(
                f"{bad} of {losses.numel()} losses are not finite (largest |log-ratio| {float(ratios.detach().abs().max()):.3g}); "
                "the update was not made. Lower training.learning_rate or the objective's beta"
            )
        self.accelerator.backward(loss)
        if drift is not None:
            metrics["kl"] = drift
        if evidence.kl is not None:
            metrics["kl_to_pretrained"] = evidence.kl.detach()
        sums.add(self.likelihood.progress(steps), weights, metrics)

    def _scale(self, steps: Int[Tensor, " S"]) -> Float[Tensor, "S 1"]:
        return (self._step_weights[steps] if self.needs.evidence == "trajectories" else torch.ones(len(steps)))[:, None]

    def _set_learning_rate(self, share: float) -> float:
        rate = share * self._lr_scale * self.config.training.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _update_average(self, average: dict[str, Tensor]) -> None:
        for name, parameter in self.policy.trainable().items():
            average[name].lerp_(parameter.detach().cpu(), 1 - self.config.training.policy_ema)


class MetricSums:
    """Weighted means of the metrics of pairs or images, over all steps and over each third of the steps (`BANDS`)."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, progress: Sequence[float], weights: Float[Tensor, " P"], metrics: dict[str, Float[Tensor, "S P"]]) -> None:
        """Add the metrics of S steps and P pairs or images. nan values are left out.

        `progress` says how far each step is from noise (0) to picture (1).
        """
        for name, values in metrics.items():
            part = weights * ~values.cpu().isnan()
            sums, totals = (values.cpu().nan_to_num() * part).sum(dim=1).tolist(), part.sum(dim=1).tolist()
            for along, value, total in zip(progress, sums, totals, strict=True):
                for key in (name, f"{name}/{BANDS[int(along * len(BANDS) + 1e-9)]}"):
                    self._sums[key] = self._sums.get(key, 0.0) + value
                    self._weights[key] = self._weights.get(key, 0.0) + total

    @classmethod
    def together(cls, parts: Sequence["MetricSums"]) -> "MetricSums":
        """Add the sums of several processes together."""
        whole = cls()
        for part in parts:
            for key, value in part._sums.items():
                whole._sums[key] = whole._sums.get(key, 0.0) + value
                whole._weights[key] = whole._weights.get(key, 0.0) + part._weights[key]
        return whole

    def means(self) -> Metrics:
        """The mean of every metric; 0 where all its values were nan. Thirds of the steps that were not trained are absent."""
        return {key: self._sums[key] / max(self._weights[key], 1e-12) for key in sorted(self._sums)}


def _accelerator(mixed_precision: str) -> Accelerator:
    try:
        return Accelerator(mixed_precision=mixed_precision)
    except ValueError as error:
        raise ConfigError(
            f"training.mixed_precision is {mixed_precision!r}, which this device cannot do: {error}; set it to 'no' or 'bf16'"
        ) from error


def step_weights(replay: Replay, *, balanced: bool) -> Float[Tensor, " T"]:
    """The weight of each step: 1, or if `balanced` the inverse of its sensitivity, scaled to mean 1 over the stochastic steps."""
    sensitivity = replay.transition.sensitivity(replay.grid)
    if not balanced:
        return torch.ones_like(sensitivity)
    inverse = torch.where(sensitivity > 0, 1 / sensitivity.clamp(min=1e-12), 0.0)
    return inverse / inverse[sensitivity > 0].mean()


def looks_back(config: RunConfig, *, last: bool) -> bool:
    """Whether an update of an objective without a reference measures the KL to the pretrained model: only a round's last one, and only with an adapter."""
    return last and config.adapter.method == "lora"


def _pairs(groups: Sequence[PromptGroup]) -> tuple[Int[Tensor, "P 2"], Float[Tensor, " P"], Float[Tensor, " P"]]:
    """All pairs of all groups, as positions in the concatenated images; their targets; their weights."""
    offsets = [0]
    for group in groups:
        offsets.append(offsets[-1] + len(group))
    pairs = torch.cat([group.pairs + offset for group, offset in zip(groups, offsets, strict=False)])
    return pairs, torch.cat([group.targets for group in groups]), torch.cat([group.weights for group in groups])


def _pair_products(products: Float[Tensor, "S N N"], pairs: Int[Tensor, "P 2"]) -> PairProducts:
    a, b = pairs[:, 0], pairs[:, 1]
    return PairProducts(aa=products[:, a, a], bb=products[:, b, b], ab=products[:, a, b])


def _labels(groups: Sequence[PromptGroup]) -> GroupLabels:
    """The labels of all groups' images, concatenated."""
    every = [group.labels for group in groups if group.labels is not None]
    return GroupLabels(
        values=torch.cat([labels.values for labels in every]),
        signs=torch.cat([labels.signs for labels in every]),
        weights=torch.cat([labels.weights for labels in every]),
    )
