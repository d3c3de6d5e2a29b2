"""What an objective is: a loss of each pair, or of each image, from what the policy says of it.

Every objective reads one kind of number, a log-likelihood q of an image at one step: the log-prob of a recorded denoising step, or, for
objectives on pictures alone, minus the denoising error -|pred - target|^2 / D at one noise level, which bounds it. The log-ratio r is q under
the policy minus q under the reference.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from d3po.options import EvidenceKind, LabelKind, ModelKind, ReferenceUse


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective has to be given."""

    labels: LabelKind
    evidence: EvidenceKind
    reference: ReferenceUse
    """`none`: it gets q itself where others get r."""
    model_kind: ModelKind = "any"
    """Models that its formula was made for: of whole timesteps (`discrete`), of flow matching (`flow`)."""
    same_state: bool = False
    """Its pairs must come out of one and the same x_t (`sampling.branch`)."""
    exact_kl: bool = False
    """It wants the KL of each step to the pretrained model, at the price of one more network call."""
    batch_mean: bool = False
    """It wants the mean log-ratio of the update's images, at the price of one more network call without gradient."""

    def words(self) -> str:
        """What it has to be given, in words."""
        evidence = "the trajectories of sampled pictures" if self.evidence == "trajectories" else "pictures alone, sampled or imported"
        against = {"none": "no reference", "chosen": "the reference that objective.reference names", "sampler": "the policy that sampled"}
        more = [
            *(["pictures that part in one step (sampling.branch)"] if self.same_state else []),
            *(["the KL to the pretrained model"] if self.exact_kl else []),
        ]
        return f"{self.labels}; {evidence}; {', '.join([against[self.reference], *more])}"


class PairObjective(ABC):
    """A loss of two images of one prompt."""

    @property
    def reward_scale(self) -> float:
        """What a log-ratio is multiplied by to be the implicit reward that the loss reads; 0 of an objective without a reference."""
        return 0.0

    @property
    def loss_range(self) -> tuple[float, float] | None:
        """Between which values the loss of a pair can lie, in nats, where clipping bounds it on both sides."""
        return None

    @property
    def drops_ties(self) -> bool:
        """Whether a tie teaches it nothing, so that tied pairs need not be computed."""
        return False

    @abstractmethod
    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """Loss of each pair and step; `target` is the share of preference that a holds."""

    def clipped_share(
        self,
        log_ratio_a: Float[Tensor, "*pairs"],
        log_ratio_b: Float[Tensor, "*pairs"],  # noqa: ARG002
        target: Float[Tensor, "*pairs"],  # noqa: ARG002
    ) -> Float[Tensor, "*pairs"]:
        """The share of each pair's two gradients, 0 to 1, that clipping cut off; a loss that clips the margin cuts off both or none."""
        return torch.zeros_like(log_ratio_a)


@dataclass(frozen=True, kw_only=True)
class ImageTerms:
    """What is known of S steps of N images."""

    log_ratio: Float[Tensor, "S N"]
    value: Float[Tensor, " N"]
    """What `ImageObjective.values` made of the image's label."""
    kl: Float[Tensor, "S N"] | None = None
    """KL of the step to the pretrained model's, in the unit of the log-probs; of objectives that need it."""
    batch_mean: float = 0.0
    """Mean log-ratio over the whole update; of objectives that need it."""


class ImageObjective(ABC):
    """A loss of one image."""

    @property
    def reward_scale(self) -> float:
        """As of `PairObjective`; 1 where the loss reads the ratio of the two policies itself."""
        return 0.0

    @abstractmethod
    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """What the loss reads, from the round's labels (likes in [-1, 1], or scores); `prompts` says which images belong together."""

    def can_learn_from(self, labels: Float[Tensor, " N"]) -> bool:
        """Whether labels of a round teach it anything: that some images are better than others."""
        return not are_equal(labels)

    @abstractmethod
    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        """Loss of each image and step."""

    def is_clipped(self, terms: ImageTerms) -> Bool[Tensor, "S N"]:
        """Where clipping cut the gradient off."""
        return torch.zeros_like(terms.log_ratio, dtype=torch.bool)


Objective = PairObjective | ImageObjective


def preference_loss(margin: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Cross-entropy of sigmoid(margin) and the share of preference: least where the two are equal, so a tie pulls the margin to 0."""
    return -target * F.logsigmoid(margin) - (1 - target) * F.logsigmoid(-margin)


def centred(scores: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Scores minus their mean; all 0 where they are equal, of which a mean may differ by its rounding."""
    return torch.zeros_like(scores) if are_equal(scores) else scores - scores.mean()


def standardised(scores: Float[Tensor, " N"], *, epsilon: float = 0.0) -> Float[Tensor, " N"]:
    """Scores minus their mean, over their standard deviation plus `epsilon`; all 0 where they are equal."""
    apart = centred(scores)
    spread = apart.square().mean().sqrt() + epsilon
    return apart / spread if spread > 0 else apart


def are_equal(scores: Float[Tensor, " N"]) -> bool:
    """Whether all scores are one and the same number; true of none at all."""
    return bool((scores == scores[:1]).all())


def by_prompt(
    work: Callable[[Float[Tensor, " K"]], Float[Tensor, " K"]], scores: Float[Tensor, " N"], prompts: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """`work` on the scores of each prompt's images by themselves."""
    result = torch.empty_like(scores)
    for prompt in prompts.unique():
        result[prompts == prompt] = work(scores[prompts == prompt])
    return result
