"""Find a model by name or path and make it a policy."""

import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.families import CUSTOM, EMBEDDED, Family, family_of, model_directory
from d3po.options import Weights

__all__ = ["EMBEDDED", "load_pipeline", "load_policy", "model_directory"]


def load_policy(model: str, *, lora: dict[str, Any] | None, seed: int, settings: PolicySettings | None = None) -> AbstractPolicy:
    """Load a model of a supported family with a fresh adapter.

    Args:
        model: `emoji`, a folder in diffusers' layout, a .safetensors file, a hub id, or `custom:module:function`.
        lora: rank, alpha and targets, or None to train the whole network.
        seed: decides the adapter's initial weights.
        settings: guidance, picture size and what else a family asks for.

    Raises:
        ModelError: nothing is found there, or it is of another family.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    settings = settings or PolicySettings()
    source = model_directory(model)
    family = family_of(source)
    if model.startswith(CUSTOM):
        from d3po.models.custom import CustomPolicy, load_custom

        return CustomPolicy(load_custom(model.removeprefix(CUSTOM)), lora=lora, seed=seed, settings=settings)
    pipeline = load_pipeline(source, family, parts=settings.parts, weights=settings.weights)
    module, _, name = family.policy.partition(":")
    policy = getattr(importlib.import_module(module), name)
    return policy(pipeline, lora=lora, seed=seed, settings=settings, load_part=_part_loader(source, pipeline))


def load_pipeline(source: str, family: Family, *, parts: str = "", weights: Weights = "float32") -> Any:
    """The diffusers pipeline, its autoencoder in float32 and all else in the precision asked for.

    Pickles are never loaded, nor is a safety checker, which nothing here asks.

    Raises:
        ModelError: it is not there, not whole, or the hub is out of reach.
    """
    import diffusers
    import torch

    from d3po.models.single_file import load_single_file

    _be_quiet()
    local, dtype = Path(source).exists(), getattr(torch, weights)
    kind = getattr(diffusers, family.pipelines[0])
    unused = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in inspect.signature(kind).parameters else {}
    try:
        if Path(source).is_file():
            pipeline = load_single_file(source, kind, parts=parts, dtype=dtype, replaced=unused)
            pipeline.vae.float()
            return pipeline
        dtypes = {"default": dtype, "vae": torch.float32}
        return diffusers.DiffusionPipeline.from_pretrained(source, local_files_only=local, dtype=dtypes, use_safetensors=True, **unused)
    except Exception as error:  # the loaders of three libraries raise what they like
        first = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "is the path or hub id right, and the hub in reach?"
        if Path(source).is_file():
            remedy = (
                "a single file lacks tokenizers, configurations, and at times whole parts: name a folder or hub id that has them by `parts`"
            )
        raise ModelError(f"model {source!r} cannot be loaded: {first}; {remedy}") from error


def _part_loader(source: str, pipeline: Any) -> Callable[[str], Any] | None:
    """A function that loads a part of the pipeline again by its name; None for a single file, whose parts have no place of their own."""
    if Path(source).is_file():
        return None
    parts = {name: (type(part), getattr(part, "dtype", None)) for name, part in pipeline.components.items()}
    local = Path(source).exists()

    def load(name: str) -> Any:
        kind, dtype = parts[name]
        return kind.from_pretrained(source, subfolder=name, dtype=dtype, local_files_only=local, use_safetensors=True)

    return load


def _be_quiet() -> None:
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bar()
