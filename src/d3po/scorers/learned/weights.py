"""Finding and reading a scorer's weights: safetensors files, never pickles."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from d3po.errors import RewardError


def device() -> torch.device:
    """The device that scorers compute on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def web_file(url: str) -> Path:
    """Download a file once into torch's cache, and return its path."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def read_tensors(folder: str, name: str, *, published: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Args:
        folder: the folder that the user named; empty if none.
        name: the name of the file.
        published: where the weights are published as a pickle, from which the file is converted; for messages.

    Raises:
        RewardError: no folder is named, or it does not contain the file.
    """
    path = Path(folder) / name
    if not folder or not path.exists():
        raise RewardError(
            f"there is no {name} in {folder or 'a folder that feedback.reward names'}: its weights are published as a pickle, {published}, and "
            "d3po loads no pickles; convert it once as docs/scorers.md shows, and name the folder"
        )
    return load_file(path)


def linear_head(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """Make a stack of the linear layers `layers.N.weight`, `layers.N.bias`, in order of N.

    The aesthetic predictor and ImageReward both end in such a stack, with only dropout between the layers, which is used in training alone.
    """
    numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("layers.")})
    layers: list[nn.Module] = []
    for number in numbers:
        weight = tensors[f"layers.{number}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": tensors[f"layers.{number}.bias"]})
        layers.append(layer)
    return nn.Sequential(*layers).eval()
