"""The flow sibling: a small two-stream transformer (that of Esser et al. 2024, arXiv 2403.03206) on the same latents, trained by flow matching.

With t from 0 (picture) to 1 (noise), x_t = (1 - t) x_0 + t noise, and the network gives the velocity noise - x_0. As there, t is drawn logit-normally, so
that the middle of the way, which is hardest, is seen most.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tools.base_model.denoiser import TOKENS, build_tokenizer, drawn_caption, tokenize
from tools.base_model.fitting import averaged, fit

STEPS, BATCH, LEARNING_RATE = 16_000, 48, 1e-3
HEADS, HEAD, LAYERS = 4, 32, 5
TEXT = 64
"""Width of each of the two text encoders; side by side they are what the transformer attends to."""
NO_T5 = 1
"""Tokens of zeros that stand in for the T5 encoder which is left out: `max_sequence_length` of the pipeline and of a run."""


def build_transformer() -> Any:
    kind: Any = SD3Transformer2DModel
    return kind(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        joint_attention_dim=2 * TEXT,
        caption_projection_dim=HEADS * HEAD,
        pooled_projection_dim=2 * TEXT,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def build_text_encoder(vocab_size: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=TEXT,
            intermediate_size=2 * TEXT,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def build(vocab_size: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "transformer": build_transformer(),
            "text_encoder": build_text_encoder(vocab_size),
            "text_encoder_2": build_text_encoder(vocab_size),
        }
    )


def train(poses: Path, directory: Path, *, device: str) -> None:
    """Fit the velocity on the encoded poses; a tenth of the captions are empty, for classifier-free guidance."""
    tokenizer = build_tokenizer()
    pool = load_file(poses)
    model = build(len(tokenizer)).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pool["latents"]), (BATCH,), generator=generator)
        latents = pool["latents"][chosen].float().to(device)
        captions = [drawn_caption(parts, generator) for parts in pool["parts"][chosen].tolist()]
        noise = torch.randn(latents.shape, generator=generator).to(device)
        t = torch.randn(BATCH, generator=generator).sigmoid().to(device)
        mixed = torch.lerp(latents, noise, t[:, None, None, None])
        text, pooled = read(model, tokenize(tokenizer, captions).to(device))
        velocity = model["transformer"](
            hidden_states=mixed, timestep=1000 * t, encoder_hidden_states=text, pooled_projections=pooled
        ).sample
        return F.mse_loss(velocity, noise - latents)

    fit(model, loss, directory=directory, steps=STEPS, learning_rate=LEARNING_RATE)


def read(model: nn.ModuleDict, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What diffusers' pipeline makes of token ids (B, length): the encoders' last but one layers with zeros for T5 behind them, and their pooled outputs."""
    both = [model[name](tokens, output_hidden_states=True) for name in ("text_encoder", "text_encoder_2")]
    text = torch.cat([each.hidden_states[-2] for each in both], dim=-1)
    return F.pad(text, (0, 0, 0, NO_T5)), torch.cat([each.text_embeds for each in both], dim=-1)


def load_pipeline(autoencoder: Any, directory: Path) -> Any:
    """The newest averaged weights as a complete text-to-image pipeline, without a T5 encoder."""
    tokenizer = build_tokenizer()
    model = build(len(tokenizer))
    model.load_state_dict(model.state_dict() | averaged(directory))  # the position embedding is computed, not learned
    kind: Any = StableDiffusion3Pipeline
    return kind(
        transformer=model["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=autoencoder,
        text_encoder=model["text_encoder"],
        tokenizer=tokenizer,
        text_encoder_2=model["text_encoder_2"],
        tokenizer_2=build_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
