"""A controller that lowers the learning rate as the policy's KL to the reference nears a target."""

from dataclasses import dataclass

MEMORY = 0.8
"""Decay of the running mean of the KL; the KL of a single update is noisy."""

LEAST_SHARE = 0.05
"""Smallest share of the learning rate: enough for the loss to pull back a policy that went past the target."""


@dataclass(kw_only=True)
class KLController:
    """Lowers the learning rate in proportion to how near the policy's KL to the reference is to a target."""

    target: float
    """Target KL in nats per latent dimension; 0 turns the controller off."""
    kl: float = 0.0
    """Running mean of the KL, which checkpoints keep."""

    def share(self, kl: float) -> float:
        """Update the running mean with an update's KL. Returns the share of the learning rate that the update may use, in [LEAST_SHARE, 1]."""
        self.kl = MEMORY * self.kl + (1 - MEMORY) * kl
        return max(LEAST_SHARE, 1 - self.kl / self.target) if self.target else 1.0
