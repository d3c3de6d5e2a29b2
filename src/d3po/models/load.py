"""Find a model by name or path and make it a policy."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy

EMBEDDED = "emoji"


def model_directory(model: str) -> str:
    """The folder or hub id that diffusers loads `model` from; `emoji` is the model inside this package."""
    return str(files("d3po") / "assets" / "emoji") if model == EMBEDDED else model


def load_policy(model: str, *, lora: dict[str, Any] | None, seed: int) -> AbstractPolicy:
    """Load a model of a supported family with a fresh adapter.

    Args:
        model: `emoji`, a folder in diffusers' layout, or a hub id.
        lora: rank, alpha and targets, or None to train the whole network.
        seed: decides the adapter's initial weights.

    Raises:
        ModelError: nothing is found there, or it is of another family.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from diffusers import DiffusionPipeline, StableDiffusionPipeline
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    from d3po.models.stable_diffusion import StableDiffusionPolicy

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bar()
    source = model_directory(model)
    local = Path(source).exists()
    if local and not (Path(source) / "model_index.json").exists():
        raise ModelError(f"{source} has no model_index.json; give the folder of a diffusers pipeline, or 'emoji' for the embedded model")
    try:
        pipeline = DiffusionPipeline.from_pretrained(source, local_files_only=local, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {model!r} cannot be loaded: {str(error).splitlines()[0]}; is the path or hub id right, and the hub in reach?"
        ) from error
    if not isinstance(pipeline, StableDiffusionPipeline):
        raise ModelError(
            f"model {model!r} is a {type(pipeline).__name__}; supported: StableDiffusionPipeline (SD 1.x, SD 2.x, the embedded emoji model)"
        )
    return StableDiffusionPolicy(pipeline, lora=lora, seed=seed)
