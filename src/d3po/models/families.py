"""The model families that d3po supports: one entry each, from which models are recognised, loaded and listed."""

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d3po.embedded import DEFAULT, EMBEDDED
from d3po.errors import ModelError

CUSTOM = "custom:"
INDEX = "model_index.json"
"""The file in a pipeline's folder or repository that names the pipeline's class and parts."""
HUB_ID = re.compile(r"(?!.*\.(safetensors|ckpt|bin|pt|pth)$)[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
DISCRETE = "DDIM, ancestral Euler"
FLOW = "flow SDE"
UNET_GUIDANCE = "classifier-free, embedded (where the U-Net takes the scale: LCM), none"
UNET_TARGETS = "LoRA on attention, attention + convolutions or all linear layers; whole network"
ALL_LAYOUTS = "`load_lora_weights`, Kohya keys, merged pipeline"
TRANSFORMER_TARGETS = "LoRA on attention or all linear layers; whole network"
TINY_ROUND = "a whole run (sample, compare, train, resume, export, reload) on a tiny random pipeline of the real classes"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models."""

    name: str
    title: str
    pipelines: tuple[str, ...]
    """Pipeline classes in diffusers, as `model_index.json` names them."""
    policy: str
    """The policy class, as module:class."""
    sampling: str
    guidance: str
    training: str
    export: str
    tested: str
    single_file: tuple[str, ...] = ()
    """diffusers' names for single-file checkpoints of this family."""
    may_lack: tuple[str, ...] = ()
    """Text encoders and tokenizers without which the pipeline still works."""
    prompts: bool = True
    """Whether a run needs a prompt file."""
    proposes: Mapping[str, str] = field(default_factory=dict)
    """Settings that `d3po init` uses instead of the default recipe's, as with --set."""
    without_guidance_input: Mapping[str, str] = field(default_factory=dict)
    """Settings that replace those of `proposes` for models of the family whose network takes no guidance scale as input."""

    def lines(self) -> list[str]:
        """Describe the family in lines of text, for a terminal."""
        facts = {
            "pipelines": ", ".join(self.pipelines) or "-",
            "sampling": self.sampling,
            "guidance": self.guidance,
            "training": self.training,
            "export": self.export,
            "tested": self.tested,
        }
        return [f"{self.name}: {self.title}", *(f"  {name:<10} {fact}" for name, fact in facts.items())]


PUBLISHED_RATE = {"training.learning_rate": "1e-4"}
"""The learning rate for models of published sizes, whose LoRAs were trained at 3e-5 (D3PO) to 3e-4 (DDPO). The default recipe's rate is for the small
embedded model."""

FAMILIES = (
    Family(
        name="stable-diffusion",
        title="Stable Diffusion 1.x and 2.x, and the embedded models",
        pipelines=("StableDiffusionPipeline",),
        policy="d3po.models.stable_diffusion:StableDiffusionPolicy",
        sampling=DISCRETE,
        guidance=UNET_GUIDANCE,
        training=UNET_TARGETS,
        export=ALL_LAYOUTS,
        tested=TINY_ROUND + ", epsilon and v prediction, a single file; the embedded model end to end",
        single_file=("v1", "v2"),
        proposes=PUBLISHED_RATE,
    ),
    Family(
        name="inpainting",
        title="Stable Diffusion inpainting (9 input channels)",
        pipelines=("StableDiffusionInpaintPipeline",),
        policy="d3po.models.inpainting:InpaintingPolicy",
        sampling=DISCRETE,
        guidance=UNET_GUIDANCE,
        training=UNET_TARGETS,
        export=ALL_LAYOUTS,
        tested=TINY_ROUND,
        single_file=("inpainting", "inpainting_v2"),
        proposes=PUBLISHED_RATE,
    ),
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipelines=("StableDiffusionXLPipeline",),
        policy="d3po.models.sdxl:SDXLPolicy",
        sampling=DISCRETE,
        guidance=UNET_GUIDANCE,
        training=UNET_TARGETS,
        export=ALL_LAYOUTS,
        tested=TINY_ROUND,
        single_file=("xl_base",),
        may_lack=("text_encoder", "tokenizer"),
        proposes={"sampling.guidance": "5.0", "adapter.targets": "attention", **PUBLISHED_RATE},
    ),
    Family(
        name="sd3",
        title="Stable Diffusion 3 and 3.5",
        pipelines=("StableDiffusion3Pipeline",),
        policy="d3po.models.sd3:SD3Policy",
        sampling=FLOW,
        guidance="classifier-free, none",
        training=TRANSFORMER_TARGETS,
        export="`load_lora_weights` (ComfyUI too), merged pipeline",
        tested=TINY_ROUND,
        single_file=("sd3", "sd35_medium", "sd35_large"),
        may_lack=("text_encoder_3", "tokenizer_3"),
        proposes={"sampling.guidance": "4.5", "sampling.steps": "10", "adapter.targets": "attention", **PUBLISHED_RATE},
    ),
    Family(
        name="flux",
        title="FLUX.1",
        pipelines=("FluxPipeline",),
        policy="d3po.models.flux:FluxPolicy",
        sampling=FLOW,
        guidance="embedded (dev), none (schnell); classifier-free where asked for",
        training=TRANSFORMER_TARGETS,
        export=ALL_LAYOUTS,
        tested=TINY_ROUND,
        single_file=("flux-dev", "flux-schnell"),
        proposes={"sampling.guidance": "3.5", "sampling.steps": "10", "adapter.targets": "attention", **PUBLISHED_RATE},
        without_guidance_input={"sampling.guidance": "1.0", "sampling.steps": "4"},
    ),
    Family(
        name="pixart",
        title="PixArt-Sigma",
        pipelines=("PixArtSigmaPipeline",),
        policy="d3po.models.pixart:PixArtPolicy",
        sampling=DISCRETE,
        guidance="classifier-free, none",
        training=TRANSFORMER_TARGETS,
        export="peft folder (ComfyUI too; diffusers has no LoRA loader for it), merged pipeline",
        tested=TINY_ROUND,
        proposes={"sampling.guidance": "4.5", "adapter.targets": "attention", **PUBLISHED_RATE},
    ),
    Family(
        name="unconditional",
        title="unconditional DDPM and DDIM",
        pipelines=("DDPMPipeline", "DDIMPipeline"),
        policy="d3po.models.unconditional:UnconditionalPolicy",
        sampling=DISCRETE,
        guidance="none",
        training=UNET_TARGETS,
        export="peft folder (diffusers has no LoRA loader for it), merged pipeline",
        tested=TINY_ROUND + ", without a prompt file",
        prompts=False,
        proposes={"sampling.guidance": "1.0", **PUBLISHED_RATE},
    ),
    Family(
        name="custom",
        title="`custom:module:function`, any network of your own",
        pipelines=(),
        policy="d3po.models.custom:CustomPolicy",
        sampling=f"{DISCRETE}, {FLOW}",
        guidance="classifier-free, none",
        training="LoRA on all linear layers; whole network",
        export="peft folder, state dict",
        tested="the 2-D toy and the action sequences in examples/, whole runs",
        prompts=False,
        proposes={"sampling.guidance": "1.0", "adapter.targets": "linear", "training.learning_rate": "1.5e-3"},
    ),
)


def family_of(model: str) -> Family:
    """Find the family of a model: an embedded one, `custom:...`, a pipeline's folder, a .safetensors file, or a hub id (of which only the index is fetched).

    Raises:
        ModelError: it is of no supported family, not a model, or found neither on this machine nor on the hub.
    """
    if model.startswith(CUSTOM):
        return named("custom")
    model = model_directory(model)
    path, here = Path(model), is_here(model)
    if path.is_file():
        return _of_single_file(path)
    index = path / INDEX if here else _fetched(model, INDEX)
    if not index.exists():
        raise ModelError(f"{path} has no {INDEX}; give the folder of a diffusers pipeline, a .safetensors file, or '{DEFAULT}'")
    try:
        return of_pipeline(str(json.loads(index.read_text())["_class_name"]), model)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} does not say which pipeline it is ({type(error).__name__}); is the download whole?") from error


def is_here(model: str, setting: str = "model") -> bool:
    """Whether a model is a file or folder on this machine; otherwise it is a hub id, OWNER/NAME. The hub is not asked.

    Args:
        model: path or hub id.
        setting: the setting that names it, for messages.

    Raises:
        ModelError: it is written as a path, and no such file or folder exists.
    """
    if os.path.exists(model):  # noqa: PTH110 - whatever the text holds
        return True
    if HUB_ID.fullmatch(model) and not Path(model).parent.is_dir():
        return False
    raise ModelError(
        f"{setting} {model!r} is not there: there is no such file or folder, seen from {Path.cwd()}, and it is no hub id (OWNER/NAME); "
        f"where it was moved, give its new place by `d3po run RUN --set {setting}=PATH`"
    )


def of_pipeline(pipeline: str, model: str) -> Family:
    """Find the family of a pipeline class; `model` is for messages.

    Raises:
        ModelError: the class belongs to no supported family.
    """
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    known = {name: family for family in FAMILIES for name in family.pipelines}
    near = difflib.get_close_matches(pipeline, known, n=1)
    hint = f" (its nearest is {near[0]})" if near else ""
    raise ModelError(f"model {model!r} is a {pipeline}, which d3po does not know{hint}; supported: {supported()}")


def proposed_for(family: Family, model: str) -> dict[str, str]:
    """The settings that `d3po init` proposes for a model of a family, depending on whether its network takes a guidance scale as input.

    Raises:
        ModelError: the denoiser's configuration cannot be fetched from the hub.
    """
    if not family.without_guidance_input or _takes_guidance(model):
        return {**family.proposes}
    return {**family.proposes, **family.without_guidance_input}


def _takes_guidance(model: str) -> bool:
    """Whether a FLUX transformer takes the guidance scale as input; True if its configuration cannot be read, which is reported when it is loaded."""
    path = Path(model)
    if path.is_file():
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return any("guidance_in." in name or "guidance_embedder." in name for name in file.keys())  # noqa: SIM118
    config = "transformer/config.json"
    file = path / config if path.is_dir() else _fetched(model, config)
    try:
        return bool(json.loads(file.read_text()).get("guidance_embeds", False))
    except (OSError, ValueError, AttributeError):
        return True


def named(name: str) -> Family:
    """The family with this name, which must exist."""
    return next(family for family in FAMILIES if family.name == name)


def supported() -> str:
    """List the supported pipelines in one line."""
    return ", ".join([*(pipeline for family in FAMILIES for pipeline in family.pipelines), "custom:module:function"])


def model_directory(model: str) -> str:
    """The folder or hub id that diffusers loads `model` from; an embedded model's name stands for its folder in this package."""
    return str(EMBEDDED[model].directory) if model in EMBEDDED else model


def table() -> list[list[str]]:
    """The table of families in docs/families.md, heading first."""
    heading = ["family", "models", "pipelines", "sampling", "guidance", "training", "export", "tested how"]
    return [
        heading,
        *([f.name, f.title, ", ".join(f.pipelines) or "-", f.sampling, f.guidance, f.training, f.export, f.tested] for f in FAMILIES),
    ]


def _fetched(model: str, name: str) -> Path:
    """Fetch a small file of a pipeline from the hub, or take it from the hub's cache on this machine."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, name)
        return Path(cached if isinstance(cached, str) else hf_hub_download(model, name))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {model!r} is not on this machine, and the hub does not give its {name} ({type(error).__name__}); is the path or hub id "
            "right, is it a pipeline in diffusers' layout, is the hub in reach, and, if the model asks for it, are you logged in (`hf auth login`)?"
        ) from error


def _of_single_file(path: Path) -> Family:
    """Recognise a single-file checkpoint by the names and shapes of its tensors, as diffusers does; no weights are read."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is no .safetensors file; pickled checkpoints are not read, convert it with diffusers first")
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Any] = {name: _OnlyShape(tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    kind = infer_diffusers_model_type(tensors)
    family = next((f for f in FAMILIES if kind in f.single_file), None)
    # diffusers takes everything that it does not recognise for Stable Diffusion 1.x
    if family is None or (kind == "v1" and "model.diffusion_model.input_blocks.0.0.weight" not in tensors):
        what = "no model that diffusers recognises" if kind == "v1" else f"a checkpoint of the kind {kind!r}"
        raise ModelError(f"{path} is {what}; supported: {supported()}")
    return family


@dataclass(frozen=True)
class _OnlyShape:
    """Stands in for a tensor of which only the shape is read."""

    shape: tuple[int, ...]
