"""A pipeline whose weights are in one .safetensors file; another pipeline provides what the file lacks."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from d3po.errors import ModelError
from d3po.models.families import Family, is_here
from d3po.models.pipeline_folder import UNUSED, first_line, open_folder

AUTOENCODER = ("first_stage_model.", "vae.")
"""Prefixes of the names of an autoencoder's tensors in such files."""


def load_single_file(path: str, family: Family, *, parts: str, dtypes: Mapping[str, torch.dtype]) -> Any:
    """Load a pipeline of the family's first class, without the parts that nothing here uses.

    Tokenizers, configurations and the weights that the file lacks are taken from the folder or hub id `parts`.

    Raises:
        ModelError: a part is neither in the file nor in `parts`.
    """
    import diffusers

    kind: Any = getattr(diffusers, family.pipelines[0])
    places, options = kind._get_signature_keys(kind)
    given: dict[str, Any] = {name: None for name in UNUSED if name in places}
    if "requires_safety_checker" in options:
        given["requires_safety_checker"] = False
    try:
        if parts:
            given |= _lent(path, parts, kind, family, dtypes)
        pipeline = kind.from_single_file(path, dtype=dtypes["default"], **given)
    except ModelError:
        raise
    except Exception as error:  # the loaders of three libraries may raise any exception
        raise ModelError(
            f"model {path!r} cannot be loaded: {first_line(error)}; a single file lacks tokenizers, configurations, and at times whole parts: "
            "name a folder or hub id that has them by `parts`"
        ) from error
    pipeline.vae.to(dtypes["vae"])
    return pipeline


def _lent(path: str, parts: str, kind: Any, family: Family, dtypes: Mapping[str, torch.dtype]) -> dict[str, Any]:
    """The arguments of `from_single_file` that come from another pipeline: its configurations, and the parts without weights in the file."""
    with safe_open(path, framework="pt") as file:
        tensors = set(file.keys())
    local = is_here(parts, "parts")
    index = kind.load_config(parts, local_files_only=local)
    weighty = {name: _class_of(value) for name, value in index.items() if isinstance(value, list) and _may_have_weights(name)}
    held = [name for name, part in weighty.items() if part is None or _holds(tensors, part)]
    folder = open_folder(parts, family, leave_out=[*held, "unet", "transformer"])
    lent = {name: folder.load_part(name, dtypes.get(name, dtypes["default"])) for name in folder.parts}
    absent = {name: None for name in folder.absent if name in family.may_lack}
    return {"config": parts, "local_files_only": local, **absent, **lent}


def _may_have_weights(name: str) -> bool:
    return name == "vae" or name.startswith("text_encoder")


def _class_of(named: list[str | None]) -> type[nn.Module] | None:
    library, kind = named
    return getattr(importlib.import_module(library), str(kind)) if library else None


def _holds(tensors: set[str], part: type[nn.Module]) -> bool:
    """Whether a file whose tensors have these names contains the weights of such a part."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import is_clip_model_in_single_file, is_t5_in_single_file
    from transformers import T5EncoderModel

    if issubclass(part, AutoencoderKL):
        return any(name.startswith(AUTOENCODER) for name in tensors)
    return is_t5_in_single_file(tensors) if issubclass(part, T5EncoderModel) else is_clip_model_in_single_file(part, tensors)
