"""A pipeline whose weights are one .safetensors file; another pipeline lends what the file lacks."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

AUTOENCODER = ("first_stage_model.", "vae.")
"""What the names of an autoencoder's tensors begin with in such files."""


def load_single_file(path: str, pipeline: Any, *, parts: str, dtype: torch.dtype, replaced: Mapping[str, Any]) -> Any:
    """A pipeline of this class, but for what is `replaced`.

    Its tokenizers, its configurations and the weights that the file lacks are those of the folder or hub id `parts`.
    """
    if not parts:
        return pipeline.from_single_file(path, dtype=dtype, **replaced)
    local = Path(parts).exists()
    lent = _lent(path, pipeline.load_config(parts, local_files_only=local), parts, dtype, local)
    return pipeline.from_single_file(path, dtype=dtype, config=parts, local_files_only=local, **lent, **replaced)


def _lent(path: str, index: dict[str, Any], parts: str, dtype: torch.dtype, local: bool) -> dict[str, Any]:
    """The autoencoder and the text encoders of `parts` that have no weights in the file, by name."""
    with safe_open(path, framework="pt") as file:
        tensors = set(file.keys())
    lent: dict[str, Any] = {}
    for name, (library, kind) in ((name, index[name]) for name in index if name == "vae" or name.startswith("text_encoder")):
        part = getattr(importlib.import_module(library), kind) if library else None
        if part is not None and not _holds(tensors, part):
            precision = torch.float32 if name == "vae" else dtype
            lent[name] = part.from_pretrained(parts, subfolder=name, dtype=precision, local_files_only=local, use_safetensors=True)
    return lent


def _holds(tensors: set[str], part: type[nn.Module]) -> bool:
    """Whether a file with tensors of these names has the weights of such a part."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import is_clip_model_in_single_file, is_t5_in_single_file
    from transformers import T5EncoderModel

    if issubclass(part, AutoencoderKL):
        return any(name.startswith(AUTOENCODER) for name in tensors)
    return is_t5_in_single_file(tensors) if issubclass(part, T5EncoderModel) else is_clip_model_in_single_file(part, tensors)
