"""The brake: a policy near the edge of what its comparisons speak about takes smaller steps."""

from dataclasses import dataclass

MEMORY = 0.8
"""How much of the running KL each update keeps; single updates are noisy."""

LEAST_SHARE = 0.05
"""What the brake leaves of the learning rate: enough for the loss to pull back a policy that went past the target."""


@dataclass(kw_only=True)
class KLController:
    """Lowers the learning rate in proportion to how near the policy has come to a target KL to the reference."""

    target: float
    """In nats per latent dimension; 0 never brakes."""
    kl: float = 0.0
    """Running mean of the KL, the state that a checkpoint keeps."""

    def share(self, kl: float) -> float:
        """Take in an update's KL; return the share of the learning rate that the update may use, in [LEAST_SHARE, 1]."""
        self.kl = MEMORY * self.kl + (1 - MEMORY) * kl
        return max(LEAST_SHARE, 1 - self.kl / self.target) if self.target else 1.0
