"""LoRAs of other tools: reading them from any common layout, merging them into a network as a starting point, and joining them with a LoRA trained on top.

Here a LoRA is a dictionary with peft's names, `MODULE.lora_A.weight` (rank, in) and `MODULE.lora_B.weight` (out, rank), whose strength alpha / rank is
multiplied into B.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from d3po.diffusion.transition import at_least_float32
from d3po.errors import ModelError

DOWN, UP = "lora_A.weight", "lora_B.weight"
KOHYA = "lora_unet_"
PREFIXES = ("", "base_model.model.", "unet.", "transformer.", "diffusion_model.")
NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""The names that diffusers and peft give the file in a LoRA's folder, in this order."""
FACTOR = re.compile(r"(?P<module>.+?)[._]lora\d?(_linear_layer)?[._](?P<factor>down|up|A|B)(\.\w+)?\.weight")
"""The name of a LoRA's factor, in any layout."""
TEXT = ("lora_te", "text_encoder")
"""Prefixes of the names of text encoders' layers."""
OTHERS = {
    "dora_scale": "DoRA",
    "magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "lora_mid": "LoCon in Tucker form",
}
"""Kinds of adapters that are not plain LoRAs, by a part of their tensors' names."""


@dataclass(frozen=True, kw_only=True)
class StartingLora:
    """A LoRA that was merged into a network before anything else."""

    layers: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    left_out: int = 0
    """Number of text encoders' layers in its file, which are not used."""

    def notes(self, path: str) -> list[str]:
        """Warnings for the user."""
        if not self.left_out:
            return []
        used = len(self.layers) // 2
        return [
            f"warning: of the LoRA {path} that the run starts from, {self.left_out} layers of text encoders are left out; "
            f"its {used} layers of the denoiser are merged"
        ]


def start_from(path: Path, network: nn.Module, pipeline: Any = None) -> StartingLora:
    """Merge the LoRA in a file or folder into the network.

    Raises:
        ModelError: it cannot be read, is no plain LoRA, or was made for another model.
    """
    lora = read_lora(path, network, pipeline)
    merge_layers(network, lora.layers)
    return lora


def read_lora(path: Path, network: nn.Module, pipeline: Any = None) -> StartingLora:
    """Read the denoiser's LoRA from a file or folder in diffusers', peft's or Kohya's layout, or any other that the pipeline's class can read.

    Raises:
        ModelError: it cannot be read, is no plain LoRA, or was made for another model.
    """
    file = next((path / name for name in NAMES if (path / name).exists()), path)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            facts = _facts(file, opened.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"the LoRA {path} cannot be read: {error}") from error
    _refuse_other_adapters(file, tensors)
    text = [name for name in tensors if pipeline is not None and name.startswith(TEXT)]
    factors = {name: _scaled(name, tensors, facts) for name in tensors if FACTOR.fullmatch(name) and name not in text}
    if not factors:
        raise ModelError(f"{file} holds no LoRA of a denoiser in diffusers', peft's or Kohya's layout; convert it first")
    return StartingLora(layers=_named(factors, network, pipeline), left_out=len(_modules(text)))


@torch.no_grad()
def merge_layers(network: nn.Module, layers: dict[str, Tensor]) -> None:
    """Add each layer's product B A to the weight that it belongs to.

    Raises:
        ModelError: a layer belongs to no module of the network, has another size, lacks a factor, or is not finite; no weight is changed then.
    """
    modules = dict(network.named_modules())
    places: dict[str, Any] = {name: getattr(modules.get(name.rpartition(".lora_")[0]), "weight", None) for name in layers}
    for name, weight in places.items():
        module = name.rpartition(".lora_")[0]
        down, up = layers.get(f"{module}.{DOWN}"), layers.get(f"{module}.{UP}")
        if weight is None or down is None or up is None or len(up) != len(weight) or down.flatten(1).shape[1] != weight[0].numel():
            raise ModelError(f"the LoRA's {name} fits no layer of {type(network).__name__}; it was made for another model")
        if up.flatten(1).shape[1] != len(down):
            raise ModelError(f"the LoRA's {module} has factors of two ranks, {len(down)} and {up.flatten(1).shape[1]}; is the file whole?")
        if not layers[name].isfinite().all():
            raise ModelError(f"the LoRA's {name} holds values that are infinite or no numbers; it cannot be used")
    for name, weight in places.items():
        if name.endswith(DOWN):
            up = layers[name.removesuffix(DOWN) + UP]
            weight += (at_least_float32(up.flatten(1)) @ at_least_float32(layers[name].flatten(1))).view_as(weight).to(weight)


def stack_layers(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join two LoRAs into one whose effect is their sum, by concatenating the A and the B along the rank.

    All layers are padded with zeros to the largest rank, since some loaders assume that all layers have the same rank.
    """
    stacked: dict[str, Tensor] = {}
    for module in sorted(_modules([*first, *second])):
        for factor, side in ((DOWN, 0), (UP, 1)):
            parts = [at_least_float32(lora[name].detach()).cpu() for lora in (first, second) if (name := f"{module}.{factor}") in lora]
            shape = parts[-1].shape
            parts = [part.reshape(*shape[:side], part.shape[side], *shape[side + 1 :]) for part in parts]  # 1x1 kernels may be matrices
            stacked[f"{module}.{factor}"] = torch.cat(parts, dim=side)
    rank = max(len(value) for name, value in stacked.items() if name.endswith(DOWN))
    return {name: _filled(value, 0 if name.endswith(DOWN) else 1, rank) for name, value in stacked.items()}


def _filled(value: Tensor, side: int, rank: int) -> Tensor:
    missing = [*value.shape]
    missing[side] = rank - value.shape[side]
    return torch.cat([value, value.new_zeros(missing)], dim=side)


def _refuse_other_adapters(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a file with tensors that would otherwise be silently ignored.

    Raises:
        ModelError: the adapter is not a plain LoRA.
    """
    for name in tensors:
        kind = next((kind for part, kind in OTHERS.items() if part in name), None)
        if kind is not None:
            raise ModelError(
                f"{file} is no plain LoRA but {kind} ({name}); merge it into a model with the tool that made it, and start from that"
            )
    factors = sum(FACTOR.fullmatch(name) is not None for name in tensors)
    strange = [name for name in tensors if not FACTOR.fullmatch(name) and not name.endswith(".alpha")]
    if factors and strange:
        raise ModelError(
            f"{file} is no plain LoRA: {len(strange)} of its {len(tensors)} tensors are no factors of one, such as {strange[0]}; "
            "merge it into a model with the tool that made it, and start from that"
        )


def _modules(names: list[str]) -> set[str]:
    """The modules to which factors with these names belong."""
    return {match["module"] for name in names if (match := FACTOR.fullmatch(name))}


def _scaled(name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Tensor:
    """A factor, multiplied by the strength alpha / rank if it is the second one (B).

    alpha is taken from a tensor `MODULE.alpha`, else from the peft configuration `facts`; without either the strength is 1.
    """
    from peft.utils.other import get_pattern_key

    match, value = FACTOR.fullmatch(name), at_least_float32(tensors[name])
    if match is None or match["factor"] in ("down", "A"):
        return value
    module, rank = match["module"], value.shape[1]
    if f"{module}.alpha" in tensors:
        return value * float(tensors[f"{module}.alpha"]) / rank
    if "lora_alpha" not in facts:
        return value
    prefix = next(prefix for prefix in reversed(PREFIXES) if module.startswith(prefix))
    patterns = facts.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), module.removeprefix(prefix)), facts["lora_alpha"])
    return value * float(alpha) / (rank**0.5 if facts.get("use_rslora") else rank)


def _facts(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The denoiser's peft configuration: for peft's layout from the file next to the weights, for diffusers' layout from the metadata."""
    config = file.parent / "adapter_config.json"
    if file.name == NAMES[1] and config.exists():
        return json.loads(config.read_text())
    facts: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    return {key.rpartition(".")[2]: value for key, value in facts.items() if not key.startswith(TEXT)}


def _named(factors: dict[str, Tensor], network: nn.Module, pipeline: Any) -> dict[str, Tensor]:
    """Rename the factors after the network's modules; names of other layouts are converted by the pipeline's class."""
    modules = {f"{prefix}{name}": name for name, _ in network.named_modules() for prefix in PREFIXES}
    modules |= {KOHYA + name.replace(".", "_"): name for name, _ in network.named_modules()}
    if not _modules([*factors]) <= modules.keys() and hasattr(pipeline, "lora_state_dict"):
        factors = _translated(factors, network, pipeline)
    layers: dict[str, Tensor] = {}
    for name, value in factors.items():
        match = FACTOR.fullmatch(name)
        if match is None or match["module"] not in modules:
            raise ModelError(
                f"the LoRA's {name} belongs to no module of {type(network).__name__}; it was made for another model, or is in a layout "
                "that diffusers cannot read for this one"
            )
        layers[f"{modules[match['module']]}.{DOWN if match['factor'] in ('down', 'A') else UP}"] = value
    return layers


def _translated(factors: dict[str, Tensor], network: Any, pipeline: Any) -> dict[str, Tensor]:
    """Convert the factors to diffusers' layout, with the converters of diffusers' loaders.

    Raises:
        ModelError: diffusers knows no such layout, or understood only some of the layers.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft

    kind = type(pipeline)
    try:
        read = kind.lora_state_dict(dict(factors), unet_config=network.config, return_alphas=True)
        translated: dict[str, Tensor] = convert_unet_state_dict_to_peft(read[0] if isinstance(read, tuple) else read)
    except Exception as error:  # the converters of many layouts may raise any exception
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the LoRA is in no layout that diffusers reads for {kind.__name__} ({first}); it was made for another model"
        ) from error
    before, after = len(_modules([*factors])), len(_modules([*translated]))
    if after < before:
        raise ModelError(
            f"of the LoRA's {before} layers diffusers understood {after} for {kind.__name__}; convert it to diffusers' layout first"
        )
    return translated
