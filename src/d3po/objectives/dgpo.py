"""DGPO, Direct Group Preference Optimization (Luo et al. 2025, arXiv 2510.08425): all K pictures of a prompt are compared at once, by their advantages.

With r = -(e_theta - e_ref) of a picture at one noise level, where e is the mean squared denoising error, with noise that all pictures of a prompt share,
and the advantage A = (R - mean) / std of its score R over the prompt's K pictures,

    L = -log sigmoid( beta / K * sum over the prompt's pictures of A r )

It is the preference of the pictures with A > 0, as a group weighted by A, over those with A < 0. Advantages sum to 0, so the normaliser of the closed-form
optimum, which the pictures of a prompt share, cancels. At K = 2 the advantages are 1 and -1, and L is the loss of Diffusion-DPO. Its gradient is beta
times that of the published code, mean of sigmoid(-beta / K sum A r) A e_theta, through whose sigmoid no gradient flows.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, by_prompt, standardised


@dataclass(frozen=True, kw_only=True)
class DGPO(ImageObjective):
    """The DGPO objective with its settings; calling it returns the loss of each image and noise level, which is that of its whole prompt."""

    beta: float
    """Larger keeps the policy closer to the reference."""

    @property
    def reward_scale(self) -> float:
        """As for two pictures, whose margin the loss reads times beta / 2."""
        return 0.5 * self.beta

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The advantages A, from the scores; 0 where a prompt's scores are all equal."""
        return by_prompt(standardised, labels, prompts)

    def can_learn_from(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> bool:
        """Whether the pictures of any prompt differ; there is nothing to learn from the only picture of a prompt."""
        return bool(self.values(labels, prompts).any())

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        assert terms.prompts is not None
        of_one_prompt = (terms.prompts[:, None] == terms.prompts).to(terms.log_ratio)
        margin = (terms.value * terms.log_ratio) @ of_one_prompt / of_one_prompt.sum(dim=0)
        return -F.logsigmoid(self.beta * margin)
