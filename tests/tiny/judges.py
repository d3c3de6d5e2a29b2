"""Tiny, randomly initialised judges of transformers' real classes, saved as the published ones are."""

import json
import re
from pathlib import Path

import torch
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
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

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
    torch.save(head(seed=1), directory / "aesthetic-model.pth")
    return directory


def save_image_reward(directory: Path) -> Path:
    """BLIP and a head in one file, under the names that ImageReward's own code gives to tensors."""
    vision = BlipVisionConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=4, initializer_range=0.5
    )  # fmt: skip
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *parts.LETTERS, *(f"##{letter}" for letter in parts.LETTERS)]
    text = BlipTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, initializer_range=0.5, bos_token_id=2, pad_token_id=0, sep_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eyes, reader = BlipVisionModel(vision).state_dict(), BlipTextModel(text, add_pooling_layer=False).state_dict()
    tensors = {f"blip.visual_encoder.{_published(name)}": value for name, value in eyes.items()}
    tensors |= {f"blip.text_encoder.{name}": value for name, value in reader.items()}
    tensors |= {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None], "blip.vision_proj.weight": torch.zeros(2, WIDTH)}
    tensors |= {f"mlp.{name}": value for name, value in head(seed=2).items()}
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, directory / "ImageReward.pt")
    BlipConfig(vision_config=vision.to_dict(), text_config=text.to_dict()).save_pretrained(directory)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(directory)
    tokenizer = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"tokenizer_class": "BertTokenizer"}))
    return directory


def head(*, seed: int) -> dict[str, Tensor]:
    """Linear layers from an embedding to a number."""
    noise = torch.Generator().manual_seed(seed)
    shapes = {f"layers.{n}.weight": (out, inside) for n, (inside, out) in LAYERS.items()}
    shapes |= {f"layers.{n}.bias": (out,) for n, (_, out) in LAYERS.items()}
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}


def _published(name: str) -> str:
    """What ImageReward's code (models/BLIP/vit.py) calls a tensor of transformers' BLIP."""
    layer = re.match(r"encoder\.layers\.(\d+)\.(.+)", name)
    if not layer:
        part, _, rest = name.partition(".")
        return {"post_layernorm": f"norm.{rest}", "embeddings": EMBEDDINGS.get(rest, rest)}[part]
    inner = layer[2].replace("self_attn.projection", "attn.proj").replace("self_attn", "attn").replace("layer_norm", "norm")
    return f"blocks.{layer[1]}.{inner}"


EMBEDDINGS = {
    "class_embedding": "cls_token",
    "position_embedding": "pos_embed",
    "patch_embedding.weight": "patch_embed.proj.weight",
    "patch_embedding.bias": "patch_embed.proj.bias",
}
