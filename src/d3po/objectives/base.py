"""The interface of objectives: a loss for each pair, or for each image, computed from log-likelihoods.

Every objective reads one kind of number, the log-likelihood q of an image at one step. For objectives on trajectories, q is the log-prob of a recorded
denoising step. For objectives on pictures alone, q is minus the denoising error at one noise level, -|pred - target|^2 / D with D latent dimensions,
which stands in for the variational bound on the log-likelihood. The log-ratio r is q under the policy minus q under the reference.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from d3po.objectives.safeguard import PairProducts
from d3po.options import EvidenceKind, LabelKind, ModelKind, ReferenceUse


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective requires: kind of labels, kind of data, reference, kind of model."""

    labels: LabelKind
    evidence: EvidenceKind
    reference: ReferenceUse
    """Which policy the log-ratio is taken against. With `none` the objective is given the log-likelihood q in place of the log-ratio r."""
    model_kind: ModelKind = "any"
    """The kind of model that the formula was derived for: discrete-time diffusion (`discrete`) or flow matching (`flow`)."""
    same_state: bool = False
    """Whether both images of a pair must be drawn from the same x_t (`sampling.branch`)."""
    exact_kl: bool = False
    """Whether the loss reads the KL of each step to the pretrained model, which costs one more network call."""
    batch_mean: bool = False
    """Whether the loss reads the mean log-ratio of the update's images, which costs one more network call without gradient."""
    change: bool = False
    """Whether the loss reads how far the policy's prediction is from the reference's, and the reference's denoising error; for objectives on pictures."""

    products: bool = False
    """Whether the loss reads how the errors of both pictures of a pair point. The trainer sets it where `PairObjective.reads_products` is true."""

    def words(self) -> str:
        """The requirements in words, as `d3po objectives` prints them."""
        evidence = "the trajectories of sampled pictures" if self.evidence == "trajectories" else "pictures alone, sampled or imported"
        against = {"none": "no reference", "chosen": "the reference that objective.reference names", "sampler": "the policy that sampled"}
        more = [
            *(["pictures that part in one step (sampling.branch)"] if self.same_state else []),
            *(["the KL to the pretrained model"] if self.exact_kl else []),
        ]
        return f"{self.labels}; {evidence}; {', '.join([against[self.reference], *more])}"


class PairObjective(ABC):
    """An objective whose loss compares two images of one prompt."""

    @property
    def reward_scale(self) -> float:
        """The factor that turns a log-ratio into the implicit reward that the loss reads; 0 for an objective without a reference."""
        return 0.0

    @property
    def loss_range(self) -> tuple[float, float] | None:
        """The smallest and the largest loss that a pair can have, in nats; None unless clipping bounds the loss on both sides."""
        return None

    @property
    def drops_ties(self) -> bool:
        """Whether a tie has no gradient, so that tied pairs need not be computed."""
        return False

    @abstractmethod
    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """The loss of each pair and step; `target` is the share of preference, in [0, 1], that image a holds."""

    @property
    def reads_products(self) -> bool:
        """Whether `safeguarded` reads the products with these settings, which are computed only then."""
        return False

    def safeguarded(
        self,
        log_ratio_a: Float[Tensor, "*pairs"],
        log_ratio_b: Float[Tensor, "*pairs"],
        target: Float[Tensor, "*pairs"],  # noqa: ARG002
        products: PairProducts,  # noqa: ARG002
    ) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
        """The log-ratios as the loss is to be given them, with other gradients perhaps; called where `reads_products` is true."""
        return log_ratio_a, log_ratio_b

    def clipped_share(
        self,
        log_ratio_a: Float[Tensor, "*pairs"],
        log_ratio_b: Float[Tensor, "*pairs"],  # noqa: ARG002
        target: Float[Tensor, "*pairs"],  # noqa: ARG002
    ) -> Float[Tensor, "*pairs"]:
        """The share of each pair's two gradients, 0 to 1, that clipping removed; a loss that clips the margin removes both or none."""
        return torch.zeros_like(log_ratio_a)


@dataclass(frozen=True, kw_only=True)
class ImageTerms:
    """What an image objective reads for S steps of N images."""

    log_ratio: Float[Tensor, "S N"]
    value: Float[Tensor, " N"]
    """What `ImageObjective.values` returned for the image's label."""
    prompts: Int[Tensor, " N"] | None = None
    """One number for each image; images with the same number are all the images of one prompt. Given in training."""
    kl: Float[Tensor, "S N"] | None = None
    """KL of the step to the pretrained model's step, in the unit of the log-probs; given where `Needs.exact_kl` is set."""
    batch_mean: float = 0.0
    """Mean log-ratio over the whole update; given where `Needs.batch_mean` is set."""
    change: Float[Tensor, "S N"] | None = None
    """Mean squared difference of the policy's prediction and the reference's, with gradient; given where `Needs.change` is set."""
    reference_error: Float[Tensor, "S N"] | None = None
    """The reference's denoising error; given where `Needs.change` is set."""


class ImageObjective(ABC):
    """An objective whose loss reads labels of single images."""

    @property
    def reward_scale(self) -> float:
        """The factor that turns a log-ratio into the implicit reward that the loss reads.

        It is 1 where the loss reads the probability ratio of the two policies itself, and 0 where the loss reads no such reward.
        """
        return 0.0

    @abstractmethod
    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Turn the round's labels (likes in [-1, 1], or scores) into what the loss reads, such as advantages.

        `prompts` holds one number for each image; images with the same number are of the same prompt.
        """

    def can_learn_from(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> bool:  # noqa: ARG002
        """Whether the objective can learn from a round's labels: by default, where some images are labelled better than others."""
        return not are_equal(labels)

    @abstractmethod
    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        """The loss of each image and step."""

    def is_clipped(self, terms: ImageTerms) -> Bool[Tensor, "S N"]:
        """Where clipping removed the gradient."""
        return torch.zeros_like(terms.log_ratio, dtype=torch.bool)


Objective = PairObjective | ImageObjective


def preference_loss(margin: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Cross-entropy, in nats, between the share of preference and sigmoid(margin).

    It is smallest where the two are equal, so a tie pulls the margin to 0.
    """
    return -target * F.logsigmoid(margin) - (1 - target) * F.logsigmoid(-margin)


def centred(scores: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Scores minus their mean. Equal scores give exactly 0, which subtracting a rounded mean would not."""
    return torch.zeros_like(scores) if are_equal(scores) else scores - scores.mean()


def standardised(scores: Float[Tensor, " N"], *, epsilon: float = 0.0) -> Float[Tensor, " N"]:
    """Scores minus their mean, divided by the sum of their standard deviation and `epsilon`. Equal scores give 0."""
    apart = centred(scores)
    spread = apart.square().mean().sqrt() + epsilon
    return apart / spread if spread > 0 else apart


def are_equal(scores: Float[Tensor, " N"]) -> bool:
    """Whether all scores are the same number; True for an empty tensor."""
    return bool((scores == scores[:1]).all())


def by_prompt(
    work: Callable[[Float[Tensor, " K"]], Float[Tensor, " K"]], scores: Float[Tensor, " N"], prompts: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Apply `work` to the scores of each prompt's images separately."""
    result = torch.empty_like(scores)
    for prompt in prompts.unique():
        result[prompts == prompt] = work(scores[prompts == prompt])
    return result
