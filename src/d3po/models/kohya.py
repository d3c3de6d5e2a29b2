"""LoRAs in the layout of Kohya's scripts, which ComfyUI and others read."""

import torch
from torch import Tensor

from d3po.models.interchange import KOHYA


def to_kohya(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Module names with underscores, `lora_down`, `lora_up`, and an alpha equal to the rank, so that the strength is 1."""
    tensors: dict[str, Tensor] = {}
    for name, value in layers.items():
        module, _, factor = name.rpartition(".lora_")
        key = KOHYA + module.replace(".", "_")
        tensors[f"{key}.lora_{'down' if factor.startswith('A') else 'up'}.weight"] = value.contiguous()
        if factor.startswith("A"):
            tensors[f"{key}.alpha"] = torch.tensor(float(len(value)))
    return tensors
