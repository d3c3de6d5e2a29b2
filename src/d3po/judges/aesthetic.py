"""The LAION aesthetic predictor v2: linear layers on CLIP's embedding of the picture; the prompt plays no part."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from d3po.judges.similarity import CLIP_L, TwoTowers
from d3po.judges.weights import hub_file, linear_head, read_tensors

HEAD_REPOSITORY, HEAD = "trl-lib/ddpo-aesthetic-predictor", "aesthetic-model.pth"
"""`sac+logos+ava1-l14-linearMSE.pth` of github.com/christophschuhmann/improved-aesthetic-predictor, the weights of the DDPO and D3PO papers."""


def aesthetic(folder: str = "") -> Callable[[Image.Image, str], float]:
    """The predicted rating, 1 to 10.

    Args:
        folder: holds a CLIP model and, as `aesthetic-model.pth`, the head.
    """
    towers = TwoTowers(folder or CLIP_L, folder or CLIP_L)
    head = linear_head(read_tensors(Path(folder) / HEAD if folder else hub_file(HEAD_REPOSITORY, HEAD)))

    @torch.inference_mode()
    def score(image: Image.Image, prompt: str) -> float:
        return float(head(towers.embed_picture(image).float().cpu()))

    return score
