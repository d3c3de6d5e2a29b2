"""A pipeline in diffusers' layout, a folder with a subfolder for each part. Missing and damaged files are reported before anything is loaded."""

import importlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from d3po.errors import ModelError
from d3po.models.families import INDEX, Family

BASES = {"transformers": "model", "diffusers": "diffusion_pytorch_model"}
"""The base name of each library's weight files."""
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
VARIANTS = ("fp16", "bf16", "non_ema")
"""Copies of the weights in another precision, or without averaging, in the order of preference if there are no plain weights."""
UNUSED = ("safety_checker", "feature_extractor")
"""Parts that nothing here uses, and that are therefore not loaded."""
TEXT = ("text_encoder", "tokenizer")
"""Prefixes of the names of parts that read prompts."""
NO_SAFETENSORS = "Could not find the necessary `safetensors` weights"
"""Part of diffusers' message about a repository that lacks the weights asked for."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a pipeline that has weights."""

    kind: Any
    """The part's class."""
    variant: str | None
    """The copy of its weights that is loaded; None for the plain weights."""


@dataclass(frozen=True, kw_only=True)
class PipelineFolder:
    """A complete pipeline on this machine."""

    path: Path
    pipeline: Any
    """The pipeline's class."""
    parts: Mapping[str, Part]
    """The parts with weights, by name."""
    absent: Sequence[str]
    """Parts that the class can have, but that are missing or not loaded."""

    def load(self, dtypes: Mapping[str, torch.dtype]) -> Any:
        """Load the pipeline, each part in the dtype given for its name, or else in that for "default".

        Raises:
            ModelError: a part's weights are not those that its configuration asks for.
        """
        modules = {name: self.load_part(name, dtypes.get(name, dtypes["default"])) for name in self.parts}
        unused = {"requires_safety_checker": False} if "safety_checker" in self.absent else {}
        try:
            return self.pipeline.from_pretrained(self.path, local_files_only=True, **modules, **dict.fromkeys(self.absent), **unused)
        except Exception as error:  # tokenizers and schedulers of many kinds may raise any exception
            raise ModelError(f"model {self.path} cannot be loaded: {first_line(error)}") from error

    def load_part(self, name: str, dtype: torch.dtype) -> nn.Module:
        """Load one part with its weights.

        Raises:
            ModelError: its weights are not those that its configuration asks for.
        """
        part = self.parts[name]
        try:
            module, said = part.kind.from_pretrained(
                self.path, subfolder=name, variant=part.variant, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )  # fmt: skip
        except Exception as error:  # the loaders of two libraries may raise any exception
            raise ModelError(f"{self.path / name} cannot be loaded: {first_line(error)}") from error
        if missing := sorted(said["missing_keys"]):
            raise ModelError(
                f"{self.path / name} lacks {len(missing)} of the weights of a {part.kind.__name__}, such as {missing[0]}; is the download whole?"
            )
        return module

    def notes(self) -> list[str]:
        """Warnings for the user about the weights that are loaded."""
        taken = [f"{name} ({part.variant})" for name, part in self.parts.items() if part.variant]
        return [f"warning: {self.path} has no plain weights of {', '.join(taken)}; the variants in brackets are taken"] if taken else []


def open_folder(source: str, family: Family, *, leave_out: Collection[str] = ()) -> PipelineFolder:
    """Open the pipeline in a folder, or fetch it from the hub, and check every file that will be loaded.

    `leave_out` names parts that are not needed: they are neither fetched nor checked.

    Raises:
        ModelError: the pipeline lacks a part, or a part lacks a file or has its weights as pickles.
    """
    import diffusers

    kind: Any = getattr(diffusers, family.pipelines[0])
    places: set[str] = {*kind._get_signature_keys(kind)[0]}
    left_out = places.intersection((*UNUSED, *leave_out))
    path = Path(source) if Path(source).is_dir() else _fetched(source, left_out)
    index: dict[str, Any] = json.loads((path / INDEX).read_text())
    named = {name: value for name, value in index.items() if name in places - left_out and isinstance(value, list) and value[0]}
    optional = {name for name in kind._optional_components if not name.startswith(TEXT)} | {*family.may_lack}
    for name in sorted(places - left_out - named.keys() - optional):
        raise ModelError(f"{path / INDEX} names no {name}, without which a {kind.__name__} draws nothing; take a folder that has it")
    for name in sorted(named):
        if not (path / name).is_dir():
            raise ModelError(f"{path} has no folder {name}, which its {INDEX} names; is the download whole?")
    return PipelineFolder(
        path=path, pipeline=getattr(diffusers, index["_class_name"]), parts=_parts(path, named), absent=sorted(places - named.keys())
    )


def first_line(error: Exception) -> str:
    """The first line of another library's error message, or the error's type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fetched(source: str, leave_out: Iterable[str]) -> Path:
    """Fetch the repository's pipeline, with the first variant of its weights that exists, and return its folder in the hub's cache."""
    from diffusers import DiffusionPipeline

    first: Exception | None = None
    for variant in (None, *VARIANTS):
        try:
            return Path(DiffusionPipeline.download(source, use_safetensors=True, variant=variant, **dict.fromkeys(leave_out)))
        except Exception as error:  # the hub's client may raise any exception
            first = first or error
            if not any(words in str(error) for words in (NO_SAFETENSORS, "no such modeling files")):
                break
    assert first is not None
    if NO_SAFETENSORS in str(first):
        raise ModelError(f"model {source!r} has no weights as safetensors on the hub; {_how_to_convert(source)}") from first
    raise ModelError(
        f"model {source!r} cannot be fetched: {first_line(first)}; is the hub id right, the hub in reach, and, if the model asks for it, "
        "are you logged in (`hf auth login`)?"
    ) from first


def _parts(path: Path, named: Mapping[str, list[str]]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for name, (library, kind_name) in named.items():
        kind = getattr(importlib.import_module(library), kind_name, None) if library in BASES else None
        if kind is None:
            raise ModelError(
                f"{path / INDEX} names {library}.{kind_name} as its {name}, which is not installed; code from a model's repository is not run"
            )
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            _require(path / name, "config.json")
            parts[name] = Part(kind=kind, variant=_variant(path / name, BASES[library]))
        elif name.startswith("tokenizer"):
            _require_vocabulary(path / name, kind)
        elif name.startswith("scheduler"):
            _require(path / name, "scheduler_config.json")
    return parts


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise ModelError(f"{folder} has no {name}; is the download whole?")


def _require_vocabulary(folder: Path, kind: Any) -> None:
    """Refuse a tokenizer without its vocabulary, which transformers would load although it reads nothing."""
    whole = "tokenizer.json"
    pieces = sorted({*kind.vocab_files_names.values()} - {whole})
    missing = [name for name in pieces if not (folder / name).is_file()]
    if not (folder / whole).is_file() and (missing or not pieces):
        raise ModelError(f"{folder} has neither {whole} nor {', '.join(missing)}, which hold its vocabulary; is the download whole?")


def _variant(folder: Path, base: str) -> str | None:
    """Choose the copy of the weights to load, the plain one if it exists, and check all its files. Returns None for the plain copy.

    Raises:
        ModelError: there are no weights, they are pickled, or a file is missing or cut off.
    """
    named = re.compile(rf"{base}(?:\.(?P<variant>\w+))?(?P<shard>-\d+-of-\d+)?(?:\.(?P<late>\w+))?\.safetensors")
    found: dict[str | None, list[re.Match[str]]] = {}
    for match in filter(None, (named.fullmatch(file.name) for file in sorted(folder.iterdir()))):
        found.setdefault(match["variant"] or match["late"], []).append(match)
    indices = {file.name: file for file in folder.glob(f"{base}.safetensors*.json")}
    found |= {None: []} if f"{base}.safetensors.index.json" in indices and None not in found else {}
    if not found:
        pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in PICKLED]
        if pickles:
            raise ModelError(f"{folder} holds its weights as a pickle ({pickles[0]}); {_how_to_convert(str(folder.parent))}")
        raise ModelError(f"{folder} has no weights ({base}.safetensors); is the download whole?")
    variant = min(found, key=lambda name: (name is not None, VARIANTS.index(name) if name in VARIANTS else len(VARIANTS), name or ""))
    files = [match.string for match in found[variant]]
    if all(match["shard"] for match in found[variant]):
        files = _shards(folder, [name for name in indices if variant is None or variant in name.split(".")], variant)
    for name in files:
        _require_whole(folder / name)
    return variant


def _shards(folder: Path, indices: Sequence[str], variant: str | None) -> list[str]:
    """The files of weights that an index names.

    Raises:
        ModelError: there is no index, or it cannot be read.
    """
    indices = [name for name in indices if variant is not None or name.endswith(".safetensors.index.json")]
    if not indices:
        raise ModelError(
            f"{folder} has its weights in several files, but no .safetensors.index.json that says which; is the download whole?"
        )
    try:
        return sorted({*json.loads((folder / indices[0]).read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / indices[0]} is no index of weights ({type(error).__name__}); is the download whole?") from error


def _require_whole(file: Path) -> None:
    """Check that a file exists and has the length that its header says; no weights are read.

    Raises:
        ModelError: it does not.
    """
    if not file.is_file():
        raise ModelError(f"{file} is not there, but is named by its index; is the download whole?")
    try:
        with safe_open(file, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        pointer = file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs")
        remedy = "it is a pointer of git-lfs, fetch it with `git lfs pull`" if pointer else "is the download whole?"
        raise ModelError(f"{file} cannot be read as safetensors: {error}; {remedy}") from error


def _how_to_convert(model: str) -> str:
    return (
        'pickles can run anything and are never loaded. Where you trust them, convert once: python -c "from diffusers import DiffusionPipeline; '
        f"DiffusionPipeline.from_pretrained('{model}', use_safetensors=False).save_pretrained('converted')\""
    )
