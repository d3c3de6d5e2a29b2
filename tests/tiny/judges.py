"""Tiny, randomly initialised judges of transformers' real classes, saved as the published ones are."""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipTextConfig,
    BlipVisionConfig,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
)

from tests.tiny import parts

SIDE, WIDTH = 8, 16
LAYERS = {0: (WIDTH, 8), 2: (8, 4), 4: (4, 4), 6: (4, 2), 7: (2, 1)}
"""Of the heads, numbered as in the published files, where dropout has the numbers between."""


def save_clip(directory: Path, *, logit_scale: float = 4.6) -> Path:
    """A CLIP model with its tokenizer and picture preprocessing."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=4
    )
    config = CLIPConfig(text_config=parts.clip_config().to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(config)
    nn.init.constant_(model.logit_scale, logit_scale)
    model.save_pretrained(directory)
    pixels = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    CLIPProcessor(image_processor=pixels, tokenizer=parts.clip_tokenizer()).save_pretrained(directory)
    return directory


def save_aesthetic(directory: Path) -> Path:
    """The same with a head."""
    save_clip(directory)
    save_file(head(seed=1), directory / "aesthetic-model.safetensors")
    return directory


def save_image_reward(directory: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """BLIP and a head in one file, of tensors with the names and shapes that the authors' code gives them."""
    vision = BlipVisionConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=4
    )
    vision.layer_norm_eps = 1e-6
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *parts.LETTERS, *(f"##{letter}" for letter in parts.LETTERS)]
    text = BlipTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, bos_token_id=2, pad_token_id=0, sep_token_id=3,
    )  # fmt: skip
    tensors = {name: wave(name, shape) for name, shape in shapes.items()}
    unused = {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None], "blip.vision_proj.weight": torch.zeros(2, WIDTH)}
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors | unused, directory / "ImageReward.safetensors")
    BlipConfig(vision_config=vision.to_dict(), text_config=text.to_dict()).save_pretrained(directory)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(directory)
    return directory


def wave(name: str, shape: Sequence[int]) -> Tensor:
    """Numbers in (-1, 1) that look random and follow from the name, on any machine."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (43758.5453 * torch.sin(12.9898 * i + zlib.crc32(name.encode()) % 1000)).frac().reshape(*shape).float()


def head(*, seed: int) -> dict[str, Tensor]:
    """Linear layers from an embedding to a number."""
    noise = torch.Generator().manual_seed(seed)
    shapes = {f"layers.{n}.weight": (out, inside) for n, (inside, out) in LAYERS.items()}
    shapes |= {f"layers.{n}.bias": (out,) for n, (_, out) in LAYERS.items()}
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
