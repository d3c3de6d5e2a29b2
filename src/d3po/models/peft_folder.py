"""A LoRA as a folder that `peft.PeftModel.from_pretrained(network, folder)` loads, for pipelines without a LoRA loader of their own."""

from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from d3po.models.lora import ADAPTER


def save_peft_folder(network: Any, directory: Path, layers: dict[str, Tensor]) -> Path:
    """Write `layers` (peft's names, alpha / rank folded in) with the configuration that says where they go."""
    own = network.peft_config[ADAPTER]
    directory.mkdir(parents=True, exist_ok=True)
    LoraConfig(r=own.r, lora_alpha=own.r, target_modules=own.target_modules, inference_mode=True).save_pretrained(str(directory))
    tensors = {f"base_model.model.{name}": value.contiguous() for name, value in layers.items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return directory
