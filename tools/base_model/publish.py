"""Measure the trained model, and put it into the package: half-precision safetensors, classifier, training log, picture sheet."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from d3po.scorers.learned.classifier import PictureClassifier
from tools.base_model import autoencoder, flow, prompts
from tools.base_model import classifier as subjects
from tools.base_model import drawings as data

GUIDANCE, STEPS, ETA = 3.0, 20, 1.0
PER_SUBJECT, SHOWN = 20, 64
MAXIMUM_BYTES, MAXIMUM_BYTES_OF_FLOW = 18_000_000, 10_000_000


def sample(pipeline: Any, captions: list[str], *, seed: int, eta: float = ETA) -> Tensor:
    """Sample pictures (B, 3, 64, 64) in [0, 1] with the diffusers pipeline. `eta` applies to denoisers; a flow is sampled by Euler steps."""
    is_flow = hasattr(pipeline, "transformer")
    if not is_flow:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
    pictures = pipeline(
        captions,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=generators,
        height=data.IMAGE_SIZE,
        width=data.IMAGE_SIZE,
        output_type="pt",
        **({"max_sequence_length": flow.NO_T5} if is_flow else {"eta": eta}),
    )
    return pictures.images


def measure(pipeline: Any, classifiers: dict[str, PictureClassifier]) -> dict[str, dict[str, float]]:
    """Shares of samples that show what their captions say: the subject by subject, the style by style, the background by colour."""
    generator = torch.Generator().manual_seed(4)
    right: dict[str, dict[str, list[float]]] = {"subject": {}, "style": {}, "background": {}}
    for index, name in enumerate(data.SUBJECTS):
        styles = torch.randint(len(data.STYLES), (PER_SUBJECT,), generator=generator).tolist()
        backgrounds = torch.randint(len(data.BACKGROUNDS), (PER_SUBJECT,), generator=generator).tolist()
        captions = [data.caption(index, 0, s, b, 0, 0, 0) for s, b in zip(styles, backgrounds, strict=True)]
        pictures = sample(pipeline, captions, seed=1000 * index)
        with torch.no_grad():
            read = {kind: model(pictures).argmax(dim=1).tolist() for kind, model in classifiers.items()}
        seen = background_of(pictures).tolist()
        for i in range(PER_SUBJECT):
            right["subject"].setdefault(name, []).append(float(read["subjects"][i] == index))
            right["style"].setdefault(list(data.STYLES)[styles[i]], []).append(float(read["styles"][i] == styles[i]))
            right["background"].setdefault(list(data.BACKGROUNDS)[backgrounds[i]], []).append(float(seen[i] == backgrounds[i]))
    return {kind: {name: sum(values) / len(values) for name, values in named.items()} for kind, named in right.items()}


def background_of(pictures: Tensor) -> Tensor:
    """The index (B,) of the background whose colour is nearest to the median of each picture's outermost pixels; pictures (B, 3, h, w) in [0, 1]."""
    rim = torch.cat(
        [pictures[..., :2, :].flatten(2), pictures[..., -2:, :].flatten(2), pictures[..., :2].flatten(2), pictures[..., -2:].flatten(2)], 2
    )
    palette = torch.tensor(list(data.BACKGROUNDS.values()), dtype=torch.float32) / 255
    return torch.cdist(rim.median(dim=2).values, palette).argmin(dim=1)


def sheet(pictures: Tensor, columns: int, path: Path, *, scale: int = 2) -> None:
    """Write pictures (B, 3, h, w) in [0, 1] as one PNG."""
    width = pictures.shape[-1]
    grid = pictures.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).reshape(-1, columns * width, 3)
    image = Image.fromarray((grid * 255).round().byte().numpy())
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def publish_flow(pipeline: Any, classifiers: dict[str, PictureClassifier], work: Path, target: Path) -> None:
    """Write the flow sibling's assets, and what was measured of its samples."""
    target.mkdir(parents=True, exist_ok=True)
    measured = {f"samples_{kind}": values for kind, values in measure(pipeline, classifiers).items()}
    _write(pipeline, measured, ("flow",), work, target, maximum=MAXIMUM_BYTES_OF_FLOW)


def publish(pipeline: Any, classifiers: dict[str, PictureClassifier], work: Path, target: Path) -> None:
    """Write the package's assets; what was measured of samples, drawings held out and reconstructions goes into `measured.json`."""
    target.mkdir(parents=True, exist_ok=True)
    drawings = data.load_drawings(work)
    measured: dict[str, Any] = {f"samples_{kind}": values for kind, values in measure(pipeline, classifiers).items()}
    measured |= {f"held_out_{kind}": subjects.held_out_accuracy(kind, model, drawings) for kind, model in classifiers.items()}
    measured["reconstruction_decibels"] = {
        "captioned drawings": autoencoder.signal_to_noise(pipeline.vae, drawings.pixels),
        "drawings never seen": autoencoder.signal_to_noise(pipeline.vae, data.load_others(work, held_out=True)),
    }
    for kind, model in classifiers.items():
        subjects.publish(model, target / f"{kind}.safetensors")
    _write(pipeline, measured, ("autoencoder", "denoiser", *classifiers), work, target, maximum=MAXIMUM_BYTES)


def _write(pipeline: Any, measured: dict[str, Any], stages: tuple[str, ...], work: Path, target: Path, *, maximum: int) -> None:
    """Write the measured figures, the prompts, a sheet of unselected samples, the stages' logs, and the weights in half precision."""
    (target / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    prompts.write(target)
    parts = data.random_batch(data.load_drawings(work), SHOWN, torch.Generator().manual_seed(6)).parts.tolist()
    sheet(sample(pipeline, [data.caption(*part) for part in parts], seed=0), SHOWN // 4, target / "samples.png", scale=1)
    for stage in stages:
        shutil.copy(work / stage / "log.csv", target / f"training-{stage}.csv")
    _save_half(pipeline, target)
    size = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    if size > maximum:
        raise SystemExit(f"the weights take {size:,} bytes, more than the {maximum:,} the package may hold")
    means = {name: round(sum(values.values()) / len(values), 3) for name, values in measured.items()}
    print(means, f"{size:,} bytes of weights")


def _save_half(pipeline: Any, target: Path) -> None:
    pipeline.to(torch.float16)
    pipeline.save_pretrained(target, safe_serialization=True)
    for config in target.glob("text_encoder*/config.json"):
        values = json.loads(config.read_text())
        values["dtype"] = "float32"  # stored in half precision, loaded in single
        config.write_text(json.dumps(values, indent=2) + "\n")
