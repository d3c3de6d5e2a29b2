"""A user's own network: `model = "custom:module:function"`.

The function takes no arguments and returns a torch module with

* `predict(x_t, t, condition)`: the network's output, of the shape of x_t, (B, *sample_shape). Samples need not be pictures. `t` has shape (B,): whole
  timesteps for a discrete-time model, 1000 sigma for a flow. `condition` is what `encode` returned for the B samples' prompts, or None;
* `sample_shape`: the shape of one sample, such as (2,) or (horizon, actions);
* `prediction`: "epsilon", "v_prediction", "sample", or "flow" (the velocity noise - x_0);
* `alphas_cumprod`: signal share of each timestep, 1-D (not for "flow");

and, optionally,

* `encode(prompts)`: a tensor whose first dimension is that of the prompts;
* `decode(samples)`: pictures (B, 3, height, width) in [0, 1] of the samples, for people and rewards to look at;
* `encode_pictures(pictures)`: samples from pictures, the inverse of `decode`, for training on pictures that the model did not make.
"""

import importlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from safetensors.torch import save_file
from torch import Tensor, nn

from d3po.diffusion.flow import FlowSDE, flow_grid
from d3po.diffusion.schedule import NoiseSchedule
from d3po.diffusion.transition import at_least_float32
from d3po.errors import ConfigError, D3POError, ModelError, StorageError
from d3po.models.base import AbstractPolicy, Condition, Embeddings, PolicySettings, Sampler, SamplerSettings
from d3po.models.interchange import StartingLora, stack_layers, start_from
from d3po.models.lora import attach_lora, merge_lora, scaled_lora, switched_off
from d3po.models.peft_folder import save_peft_folder
from d3po.models.schedulers import PARAMETERIZATIONS, SchedulerFacts, discrete_sampler

PREDICTIONS = (*PARAMETERIZATIONS, "flow")


class CustomPolicy(AbstractPolicy):
    """A policy made from a module with `predict(x_t, t, condition)`. Guidance is classifier-free and needs the module's `encode`."""

    def __init__(self, module: Any, *, lora: dict[str, Any] | None, seed: int, settings: PolicySettings | None = None) -> None:
        self._module = module.eval()
        self.settings = settings or PolicySettings()
        self.latent_shape = tuple(module.sample_shape)
        self._started = StartingLora()
        if self.settings.start_from:
            self._started = start_from(Path(self.settings.start_from), module)
        self._has_adapter = lora is not None
        module.requires_grad_(lora is None)
        self._trainable = dict(module.named_parameters()) if lora is None else attach_lora(module, seed=seed, **lora)

    @property
    def network(self) -> nn.Module:
        return self._module

    def sampler(self, settings: SamplerSettings) -> Sampler:
        if self._module.prediction == "flow":
            if settings.kind not in ("model", "flow_sde"):
                raise ConfigError(f"sampling.sampler is {settings.kind!r}, but this is a flow model; choose 'flow_sde' or 'model'")
            sigmas = torch.linspace(1, 0, settings.steps + 1)
            ceiling = float(sigmas[1]) if settings.steps > 1 else 0.5
            flow = FlowSDE(noise_level=settings.noise_level, ceiling=ceiling, noisy_end=settings.last_step == "clamped")
            return Sampler(transition=flow, grid=flow_grid(sigmas))
        facts = SchedulerFacts(
            schedule=NoiseSchedule(alphas_cumprod=torch.as_tensor(self._module.alphas_cumprod).float().cpu(), final_alpha_cumprod=1.0),
            parameterization=PARAMETERIZATIONS[self._module.prediction],
            spacing="trailing",
            steps_offset=0,
            chained=True,
            clip_range=None,
            threshold_ratio=None,
            threshold_max=1.0,
        )
        return discrete_sampler(facts, settings)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        if not hasattr(self._module, "encode"):
            return Embeddings(given={}, negative={})
        with _staying("encode"):
            encoded = self._module.encode([*prompts, self.settings.negative_prompt])
        return Embeddings(given={"condition": encoded[:-1]}, negative={"condition": encoded[-1:]})

    def predict(
        self, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], condition: Condition, guidance: float | Float[Tensor, " B"]
    ) -> Float[Tensor, " B *latent"]:
        assert isinstance(condition, Embeddings)
        towards = self._called(x_t, timesteps, condition.given)
        plain = guidance == 1 if not isinstance(guidance, Tensor) else bool((guidance == 1).all())
        if plain or self.settings.guidance == "none" or "condition" not in condition.given:
            return towards
        negative = condition.negative["condition"]
        away = self._called(x_t, timesteps, {"condition": negative.expand(len(x_t), *negative.shape[1:])})
        scale = guidance.to(x_t).view(-1, *[1] * (x_t.ndim - 1)) if isinstance(guidance, Tensor) else guidance
        return away + scale * (towards - away)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, " B *latent"]) -> Float[Tensor, "B 3 height width"]:
        if hasattr(self._module, "decode"):
            with _staying("decode"):
                return self._module.decode(latents).clamp(0, 1)
        if len(self.latent_shape) == 3 and self.latent_shape[0] in (1, 3):
            return (at_least_float32(latents) / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)
        raise ModelError(
            f"samples of shape {list(self.latent_shape)} are no pictures; give {type(self._module).__name__} a method decode(samples) that draws them"
        )

    def encode(self, pictures: Float[Tensor, "B 3 height width"]) -> Float[Tensor, " B *latent"]:
        if hasattr(self._module, "encode_pictures"):
            with _staying("encode_pictures"):
                return self._module.encode_pictures(pictures)
        if not hasattr(self._module, "decode") and len(self.latent_shape) == 3 and self.latent_shape[0] in (1, 3):
            return 2 * (pictures.mean(dim=1, keepdim=True) if self.latent_shape[0] == 1 else pictures) - 1
        raise ModelError(
            f"{type(self._module).__name__} cannot take pictures; give it a method encode_pictures(pictures) that turns them into samples"
        )

    def without_adapter(self) -> AbstractContextManager[None]:
        if not self._has_adapter:
            raise ValueError("the whole network is trained, so there is no adapter to switch off")
        return switched_off(self._module)

    def trainable(self) -> dict[str, nn.Parameter]:
        return self._trainable

    def enable_gradient_checkpointing(self) -> None:
        raise ConfigError("training.gradient_checkpointing is true, but a custom model checkpoints for itself; set it to false")

    def export(self, directory: Path) -> list[Path]:
        written: list[Path] = []
        if self._has_adapter:
            layers = stack_layers(self._started.layers, scaled_lora(self._module))
            written.append(save_peft_folder(directory / "lora", layers))
            merge_lora(self._module)
            self._has_adapter = False
        merged = directory / "merged" / "model.safetensors"
        merged.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self._module.state_dict().items()}, merged)
        return [*written, merged]

    def _called(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        with _staying("predict"), torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return at_least_float32(self._module.predict(x_t, timesteps, given.get("condition")))


@contextmanager
def _staying(method: str) -> Generator[None, None, None]:
    """Turn errors of the user's code, sys.exit included, into a `ModelError` that names the method, so that it cannot end the run silently."""
    try:
        yield
    except SystemExit as error:
        raise ModelError(f"the custom model's {method} called sys.exit({error.code!r}); raise an error that says what is wrong") from error
    except Exception as error:
        if isinstance(error, D3POError) or StorageError.of(error):
            raise
        raise ModelError(f"the custom model's {method} failed: {type(error).__name__}: {error}") from error


def load_custom(name: str) -> nn.Module:
    """Import and call `module:function`, and return the module that it makes. Modules in the current folder are found too.

    Raises:
        ModelError: the function cannot be imported, it failed, or what it returned lacks part of the interface.
    """
    module_name, _, function = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory: Callable[[], Any] = getattr(importlib.import_module(module_name), function)
        module = factory()
    except (Exception, SystemExit) as error:
        raise ModelError(f"custom model {name!r} cannot be made: {type(error).__name__}: {error}") from error
    missing = [part for part in ("predict", "sample_shape", "prediction") if not hasattr(module, part)]
    if not isinstance(module, nn.Module) or missing:
        what = f"lacks {', '.join(missing)}" if missing else f"is a {type(module).__name__}, no torch.nn.Module"
        raise ModelError(f"custom model {name!r} {what}; see docs/families.md for what it must have")
    if module.prediction not in PREDICTIONS:
        raise ModelError(f"custom model {name!r} has prediction {module.prediction!r}; known are {', '.join(PREDICTIONS)}")
    if module.prediction != "flow" and not hasattr(module, "alphas_cumprod"):
        raise ModelError(f"custom model {name!r} lacks alphas_cumprod, the signal share of each of its timesteps")
    return module
