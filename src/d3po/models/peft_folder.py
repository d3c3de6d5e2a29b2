"""A LoRA as a folder that `peft.PeftModel.from_pretrained(network, folder)` loads, for pipelines that have no LoRA loader."""

from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from d3po.models.interchange import DOWN


def save_peft_folder(directory: Path, layers: dict[str, Tensor]) -> Path:
    """Write a LoRA with the configuration that names its layers. `layers` has peft's names, contains the strength, and has one rank throughout."""
    ranks = {name.removesuffix(f".{DOWN}"): len(value) for name, value in layers.items() if name.endswith(DOWN)}
    rank = max(ranks.values())
    directory.mkdir(parents=True, exist_ok=True)
    LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(ranks), inference_mode=True).save_pretrained(str(directory))
    tensors = {f"base_model.model.{name}": value.contiguous() for name, value in layers.items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return directory
