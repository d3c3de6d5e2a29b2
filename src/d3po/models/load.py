"""Loading a model by name, path or hub id, as a policy or as a plain pipeline."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.families import CUSTOM, Family, family_of, model_directory
from d3po.options import Weights

if TYPE_CHECKING:
    from d3po.models.pipeline_folder import PipelineFolder

__all__ = ["load_pipeline", "load_policy", "model_directory", "plain_pipeline"]


def load_policy(model: str, *, lora: dict[str, Any] | None, seed: int, settings: PolicySettings | None = None) -> AbstractPolicy:
    """Load a model of a supported family, with a new adapter, as a policy.

    Args:
        model: an embedded model's name, a folder in diffusers' layout, a .safetensors file, a hub id, or `custom:module:function`.
        lora: rank, alpha and targets, or None to train the whole network.
        seed: seed of the adapter's initial weights.
        settings: guidance, picture size and other properties of the policy.

    Raises:
        ModelError: the model is not found, incomplete, or of no supported family.
        ConfigError: a setting does not fit the model.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    settings = settings or PolicySettings()
    source = model_directory(model)
    family = family_of(source)
    if model.startswith(CUSTOM):
        from d3po.models.custom import CustomPolicy, load_custom

        return CustomPolicy(load_custom(model.removeprefix(CUSTOM)), lora=lora, seed=seed, settings=settings)
    module, _, name = family.policy.partition(":")
    policy = getattr(importlib.import_module(module), name)
    if Path(source).is_file():
        pipeline = load_pipeline(source, family, parts=settings.parts, weights=settings.weights)
        return policy(pipeline, lora=lora, seed=seed, settings=settings)
    folder = _opened(source, family)
    dtypes = _dtypes(settings.weights)
    made: AbstractPolicy = policy(
        folder.load(dtypes), lora=lora, seed=seed, settings=settings, load_part=lambda name: folder.load_part(name, dtypes["default"])
    )
    made.notes = [*folder.notes(), *made.notes]
    return made


def load_pipeline(source: str, family: Family, *, parts: str = "", weights: Weights = "float32") -> Any:
    """Load the diffusers pipeline in the given precision, with its autoencoder in at least float32.

    Pickles are never loaded. The safety checker is left out, since nothing here uses it.

    Raises:
        ModelError: the pipeline is not found, incomplete, or the hub cannot be reached.
    """
    if not Path(source).is_file():
        return _opened(source, family).load(_dtypes(weights))
    from d3po.models.single_file import load_single_file

    _be_quiet()
    return load_single_file(source, family, parts=parts, dtypes=_dtypes(weights))


def plain_pipeline(model: str, exported: Path) -> Any:
    """Load a plain diffusers pipeline from what `AbstractPolicy.export` wrote: the model with the LoRA, or the merged model if a LoRA cannot be loaded.

    Raises:
        ModelError: the model is a user's own network, which has no pipeline.
    """
    if model.startswith(CUSTOM):
        raise ModelError(f"{model} is a network of your own, which has no diffusers pipeline; its weights are in what `d3po export` writes")
    source, lora, merged = model_directory(model), exported / "lora", str(exported / "merged")
    if lora.is_dir() and not Path(source).is_file():
        pipeline = load_pipeline(source, family_of(source))
        if hasattr(pipeline, "load_lora_weights"):
            pipeline.load_lora_weights(lora)
            return pipeline
    return load_pipeline(merged, family_of(merged))


def _opened(source: str, family: Family) -> "PipelineFolder":
    from d3po.models.pipeline_folder import open_folder

    _be_quiet()
    return open_folder(source, family)


def _dtypes(weights: Weights) -> dict[str, Any]:
    """The dtype of each part by name, "default" for all that are not named; autoencoders are at least float32, as some overflow in half precision."""
    import torch

    dtype: torch.dtype = getattr(torch, weights)
    return {"default": dtype, "vae": torch.promote_types(dtype, torch.float32)}


def _be_quiet() -> None:
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bar()
