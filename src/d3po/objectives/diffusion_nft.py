"""DiffusionNFT (Zheng et al. 2025, arXiv 2509.16117): learning from good and bad pictures on the forward process.

With v the exact network output at x_t, v_ref the reference's output and v_theta the policy's, the loss has two implicit policies at the same distance from
the reference, one on either side. The positive one is drawn to v by the picture's goodness r in [0, 1], the negative one by 1 - r:

    v+ = v_ref + beta (v_theta - v_ref)        L = r |v+ - v|^2 / D + (1 - r) |v- - v|^2 / D
    v- = v_ref - beta (v_theta - v_ref)

Both squares follow from the reference's error e_ref = |v_ref - v|^2 / D, the log-ratio q = e_ref - |v_theta - v|^2 / D and the change
k = |v_theta - v_ref|^2 / D, since 2 (v_ref - v) . (v_theta - v_ref) / D = -(q + k):

    |v+- - v|^2 / D = e_ref -+ beta (q + k) + beta^2 k

With y = 2 r - 1 the loss is therefore e_ref - beta y (q + k) + beta^2 k. It is divided by beta, as in the published code, so that the size of the first
gradient, that of -y q, does not depend on beta.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms
from d3po.options import ErrorWeighting

SMALLEST_ERROR = 1e-5
"""The smallest root mean square by which an error is divided, as in the published code."""


@dataclass(frozen=True, kw_only=True)
class DiffusionNFT(ImageObjective):
    """The DiffusionNFT objective with its settings; calling it returns the loss of each image and noise level."""

    beta: float
    """Distance of the implicit policies from the reference, in units of the policy's own. Larger keeps the policy closer to the reference."""
    weighting: ErrorWeighting
    """`self_normalised` divides each of the two squared errors by its own root mean square, through which no gradient flows."""

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """The likes y, unchanged: 1 is liked by all, -1 is disliked by all. At 0 the policy is drawn back to the reference."""
        return labels

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        assert terms.change is not None
        assert terms.reference_error is not None
        towards = self.beta * (terms.log_ratio + terms.change)
        apart = terms.reference_error + self.beta**2 * terms.change
        goodness = (1 + terms.value) / 2
        positive, negative = self._weighed(apart - towards), self._weighed(apart + towards)
        return (goodness * positive + (1 - goodness) * negative) / self.beta

    def _weighed(self, error: Float[Tensor, "S N"]) -> Float[Tensor, "S N"]:
        if self.weighting == "uniform":
            return error
        return error / error.detach().clamp(min=SMALLEST_ERROR**2).sqrt()
