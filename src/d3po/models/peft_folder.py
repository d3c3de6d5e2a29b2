"""A LoRA as a folder that `peft.PeftModel.from_pretrained(network, folder)` loads, for pipelines without a LoRA loader of their own."""

from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from d3po.models.interchange import DOWN


def save_peft_folder(directory: Path, layers: dict[str, Tensor]) -> Path:
    """Write `layers` (peft's names, strength folded in, all of one rank) with the configuration that says where they go."""
    ranks = {name.removesuffix(f".{DOWN}"): len(value) for name, value in layers.items() if name.endswith(DOWN)}
    rank = max(ranks.values())
    directory.mkdir(parents=True, exist_ok=True)
    LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(ranks), inference_mode=True).save_pretrained(str(directory))
    tensors = {f"base_model.model.{name}": value.contiguous() for name, value in layers.items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return directory
