"""Measure the trained model, and put it into the package: half-precision safetensors, classifier, training log, picture sheet."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from d3po.judges.subjects import SubjectClassifier
from tools.base_model import classifier as subjects
from tools.base_model import drawings as data

GUIDANCE, STEPS, ETA = 3.0, 20, 1.0
MAXIMUM_BYTES = 12_000_000


def sample(pipeline: StableDiffusionPipeline, captions: list[str], *, seed: int, eta: float = ETA) -> Tensor:
    """Pictures (B, 3, 32, 32) in [0, 1], by diffusers' own pipeline call."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
    return pipeline(
        captions,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        eta=eta,
        generator=generators,
        height=data.IMAGE_SIZE,
        width=data.IMAGE_SIZE,
        output_type="pt",
    ).images


def subject_accuracy(pipeline: StableDiffusionPipeline, classifier: SubjectClassifier, *, per_subject: int) -> dict[str, float]:
    """Share of samples whose subject is read as the prompt's, by subject; styles and backgrounds are drawn at random."""
    generator = torch.Generator().manual_seed(4)
    result: dict[str, float] = {}
    for index, name in enumerate(data.SUBJECTS):
        captions = [random_caption(index, generator) for _ in range(per_subject)]
        read = classifier.accuracy(sample(pipeline, captions, seed=1000 * index), captions)
        result[name] = sum(value or 0.0 for value in read) / per_subject
    return result


def random_caption(subject: int, generator: torch.Generator) -> str:
    """A caption of the subject, its style and background said or unsaid at random."""
    style = int(torch.randint(2 * len(data.STYLES), (), generator=generator))
    background = int(torch.randint(2 * len(data.BACKGROUNDS), (), generator=generator))
    return data.caption(subject, style if style < len(data.STYLES) else None, background if background < len(data.BACKGROUNDS) else None)


def sheet(pictures: Tensor, columns: int, path: Path, *, scale: int = 2) -> None:
    """Write pictures (B, 3, h, w) in [0, 1] as one PNG."""
    width = pictures.shape[-1]
    grid = pictures.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).reshape(-1, columns * width, 3)
    image = Image.fromarray((grid * 255).round().byte().numpy())
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def publish(pipeline: StableDiffusionPipeline, classifier: SubjectClassifier, work: Path, target: Path) -> None:
    """Write the package's assets; the accuracy on held-out drawings and on samples goes into `measured.json`."""
    target.mkdir(parents=True, exist_ok=True)
    measured = {
        "sample_accuracy": subject_accuracy(pipeline, classifier, per_subject=20),
        "held_out_drawing_accuracy": subjects.held_out_accuracy(classifier, data.load_drawings(work))[1],
    }
    (target / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    captions = [data.caption(index, None, None) for index in range(len(data.SUBJECTS)) for _ in range(4)]
    sheet(sample(pipeline, captions, seed=0), 24, target / "samples.png")
    for stage in ("autoencoder", "denoiser", "classifier"):
        shutil.copy(work / stage / "log.csv", target / f"training-{stage}.csv")
    subjects.publish(classifier, target / "subjects.safetensors")
    _save_half(pipeline, target)
    size = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    if size > MAXIMUM_BYTES:
        raise SystemExit(f"the weights take {size:,} bytes, more than the {MAXIMUM_BYTES:,} the package may hold")
    print({name: round(sum(values.values()) / len(values), 3) for name, values in measured.items()}, f"{size:,} bytes of weights")


def _save_half(pipeline: StableDiffusionPipeline, target: Path) -> None:
    pipeline.to(torch.float16)
    assert isinstance(pipeline.vae, AutoencoderKL)
    pipeline.save_pretrained(target, safe_serialization=True)
    config = target / "text_encoder" / "config.json"
    values = json.loads(config.read_text())
    values["dtype"] = "float32"  # stored in half precision, loaded in single
    config.write_text(json.dumps(values, indent=2) + "\n")
