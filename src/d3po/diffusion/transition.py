"""The Gaussian reverse step x_t -> x_{t-1}: its mean, its standard deviation, its log-prob.

Sampling and replay both call `Transition.step`, so the density that is trained is the density that was sampled. The ancestral Euler step is
in `ancestral.py`, the step of flow models in `flow.py`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from d3po.diffusion.parameterization import Parameterization
from d3po.diffusion.schedule import NoiseSchedule, StepGrid
from d3po.errors import DegenerateStepError
from d3po.options import LogProbReduce


@dataclass(frozen=True, kw_only=True)
class GaussianStep:
    """The distribution Normal(mean, std^2 I) of x_{t-1} given x_t."""

    mean: Float[Tensor, " B *latent"]
    std: Float[Tensor, " B"]

    def draw(self, noise: Float[Tensor, " B *latent"]) -> Float[Tensor, " B *latent"]:
        """Draw x_{t-1} = mean + std * noise, with standard normal noise."""
        return self.mean + over_latent(self.std, self.mean) * noise

    def log_prob(self, x_next: Float[Tensor, " B *latent"], *, reduce: LogProbReduce) -> Float[Tensor, " B"]:
        """Log density of `x_next` in nats. No gradient flows into `x_next`.

        `reduce="sum"` is the joint density; `"mean"` divides it by the number of latent dimensions, as the published
        D3PO and DDPO code does.

        Raises:
            DegenerateStepError: the std of a step is 0, where no density exists.
        """
        degenerate = int((self.std <= 0).sum())
        if degenerate:
            raise DegenerateStepError(
                f"{degenerate} of {len(self.std)} steps have std <= 0, where no density exists. "
                "This happens at eta=0 and at the last step of some schedules; leave those steps out or set eta > 0 (noise_level > 0 of a flow)."
            )
        std = over_latent(self.std, self.mean)
        elements = -((x_next.detach() - self.mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
        flat = elements.flatten(1)
        return flat.sum(dim=1) if reduce == "sum" else flat.mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class ReverseStep(GaussianStep):
    """A sampler's step: the distribution of x_{t-1}, and the clean latent that the network predicts."""

    expected: Float[Tensor, " B *latent"]
    """The clean latent x_0 that the network's (guided) prediction at x_t implies, clipped or thresholded if the sampler does so."""


class Transition(ABC):
    """The interface of reverse steps: the Gaussian that a sampler draws x_{t-1} from, and what training needs to know of it.

    Timesteps are in the model's unit: whole numbers for a discrete-time model, 1000 sigma for a flow model.
    """

    @property
    @abstractmethod
    def train_timesteps(self) -> int:
        """How many timesteps the model was trained on; every timestep is below this number."""

    @abstractmethod
    def step(
        self,
        prediction: Float[Tensor, " B *latent"],
        x_t: Float[Tensor, " B *latent"],
        timesteps: Num[Tensor, " B"],
        previous: Num[Tensor, " B"],
    ) -> ReverseStep:
        """The distribution of x_{t-1}, from the network's (guided) prediction at x_t."""

    @abstractmethod
    def std(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The standard deviation of x_{t-1} given x_t; 0 where the step is deterministic."""

    @abstractmethod
    def slope(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The derivative d mean / d prediction, ignoring any bound on the predicted x_0."""

    @abstractmethod
    def noised(
        self, x0: Float[Tensor, " B *latent"], noise: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B *latent"], Float[Tensor, " B *latent"]]:
        """Add noise to a clean latent up to the timestep's level. Returns (x_t, target), where target is the exact network output at x_t."""

    def stochastic(self, grid: StepGrid) -> Bool[Tensor, " T"]:
        """Which steps of the grid have a density and can therefore be trained."""
        return self.std(grid.timesteps, grid.previous) > 0

    def sensitivity(self, grid: StepGrid) -> Float[Tensor, " T"]:
        """|d mean / d prediction| / std of every stochastic step, and 0 of every other step.

        Its square is the Fisher information that the step's log-prob carries about the network's output: with SD 1.5's
        schedule and 20 steps, the step at t=51 alone holds 73 % of it. `step_weighting="balanced"` divides by it.
        """
        std = self.std(grid.timesteps, grid.previous)
        slope = self.slope(grid.timesteps, grid.previous).abs()
        return torch.where(std > 0, slope / std.clamp(min=1e-12), 0.0)


@dataclass(frozen=True, kw_only=True)
class DDIM(Transition):
    """The DDIM step with any eta (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16); eta=1 is ancestral DDPM sampling."""

    schedule: NoiseSchedule
    parameterization: Parameterization
    eta: float
    clip_range: float | None = None
    """Clip the predicted x_0 to [-clip_range, clip_range]."""
    threshold_ratio: float | None = None
    """Dynamic thresholding of the predicted x_0 at this quantile (Saharia et al. 2022, arXiv 2205.11487); excludes clip_range."""
    threshold_max: float = 1.0
    """Largest bound of dynamic thresholding."""

    def __post_init__(self) -> None:
        if self.eta < 0:
            raise ValueError(f"eta is {self.eta}; it must be 0 (deterministic) or more")
        if self.clip_range is not None and self.threshold_ratio is not None:
            raise ValueError("clip_range and threshold_ratio are both set; choose one way to bound the predicted x_0")

    @property
    def train_timesteps(self) -> int:
        return len(self.schedule.alphas_cumprod)

    def step(
        self,
        prediction: Float[Tensor, " B *latent"],
        x_t: Float[Tensor, " B *latent"],
        timesteps: Num[Tensor, " B"],
        previous: Num[Tensor, " B"],
    ) -> ReverseStep:
        """The distribution of x_{t-1}.

        x0   = predicted clean latent
        mean = sqrt(a_prev) x0 + sqrt(1 - a_prev - std^2) eps
        """
        a_prev = over_latent(self.schedule.alpha_bar(previous), x_t)
        x0, epsilon = self._split(prediction, x_t, timesteps)
        std = self.std(timesteps, previous)
        direction = (1 - a_prev - over_latent(std, x_t) ** 2).clamp(min=0).sqrt()
        return ReverseStep(mean=a_prev.sqrt() * x0 + direction * epsilon, std=std, expected=x0)

    def _split(
        self, prediction: Float[Tensor, " B *latent"], x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B *latent"], Float[Tensor, " B *latent"]]:
        """The predicted clean latent, clipped or thresholded if the sampler does so, and the predicted noise: (x0, epsilon)."""
        x0, epsilon = self.parameterization.split(prediction, x_t, over_latent(self.schedule.alpha_bar(timesteps), x_t))
        if self.threshold_ratio is not None:
            x0 = dynamic_threshold(x0, self.threshold_ratio, self.threshold_max)
        elif self.clip_range is not None:
            x0 = x0.clamp(-self.clip_range, self.clip_range)
        return x0, epsilon

    def noised(
        self, x0: Float[Tensor, " B *latent"], noise: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B *latent"], Float[Tensor, " B *latent"]]:
        return noised(x0, noise, self.schedule.alpha_bar(timesteps), self.parameterization)

    def std(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        """eta * sqrt((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)): 0 where the step is deterministic."""
        a_t, a_prev = self.schedule.alpha_bar(timesteps), self.schedule.alpha_bar(previous)
        variance = (1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)
        return self.eta * variance.clamp(min=0).sqrt()

    def slope(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        a_t, a_prev = self.schedule.alpha_bar(timesteps), self.schedule.alpha_bar(previous)
        direction = (1 - a_prev - self.std(timesteps, previous) ** 2).clamp(min=0).sqrt()
        x0, epsilon = self.parameterization.split(torch.ones_like(a_t), torch.zeros_like(a_t), a_t)
        return a_prev.sqrt() * x0 + direction * epsilon


def noised(
    x0: Float[Tensor, " B *latent"],
    noise: Float[Tensor, " B *latent"],
    alpha_bar: Float[Tensor, " B"],
    parameterization: Parameterization,
) -> tuple[Float[Tensor, " B *latent"], Float[Tensor, " B *latent"]]:
    """Add noise to a clean latent: x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise.

    Returns (x_t, target), where target is the network output that would be exact at x_t.
    """
    x_t = over_latent(alpha_bar.sqrt(), x0) * x0 + over_latent((1 - alpha_bar).sqrt(), x0) * noise
    return x_t, parameterization.target(x0, noise, over_latent(alpha_bar, x0))


def dynamic_threshold(x0: Float[Tensor, " B *latent"], ratio: float, maximum: float) -> Float[Tensor, " B *latent"]:
    """Clip each sample to its own quantile of |x0| (kept within [1, maximum]) and rescale it to [-1, 1]."""
    bound = torch.quantile(at_least_float32(x0.flatten(1).abs()), ratio, dim=1).clamp(min=1.0, max=maximum)
    bound = over_latent(bound.to(x0.dtype), x0)
    return x0.clamp(-bound, bound) / bound


def at_least_float32(values: Tensor) -> Tensor:
    """Widen half precision to float32; leave float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def over_latent(values: Float[Tensor, " B"], latents: Float[Tensor, " B *latent"]) -> Float[Tensor, " B *ones"]:
    """Reshape one number for each image to (B, 1, ..., 1), in the latents' dtype and device, so that it broadcasts over the latents."""
    return values.to(latents).view(-1, *[1] * (latents.ndim - 1))
