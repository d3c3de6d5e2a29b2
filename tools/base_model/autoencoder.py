"""The autoencoder: 64x64 RGB to 8x16x16 latents and back.

It begins with the weights of the 32 px model's, which restores unseen drawings of twice its size to 29.2 dB as it is. It sees many more drawings
than captions name, so it draws what it never saw too.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor

from d3po.embedded import EMBEDDED, FORMER
from tools.base_model import drawings as data
from tools.base_model.fitting import averaged, fit

STEPS, BATCH, LEARNING_RATE = 1_000, 8, 5e-4
KL_WEIGHT = 2e-4
POSING = replace(data.FREE, turns=2.0, recoloured=2.0)
STARTED_FROM = EMBEDDED[FORMER].directory / "vae"
MEASURED = 1_000
"""Number of pictures on which the latents' mean and standard deviation are measured."""
OTHERS = 4
"""Number of pictures in a batch that show other things than the captioned subjects."""


def build() -> Any:
    """The 32 px model's autoencoder; diffusers' classes are typed too narrowly to be named further on."""
    kind: Any = AutoencoderKL
    model = kind.from_config(kind.load_config(STARTED_FROM), sample_size=data.IMAGE_SIZE, shift_factor=0.0)
    model.load_state_dict({name: value.float() for name, value in load_file(STARTED_FROM / "diffusion_pytorch_model.safetensors").items()})
    return model


def train(drawings: data.Drawings, others: Tensor, directory: Path, *, device: str) -> None:
    """Fit reconstruction (L1, plus L1 of differences between neighbouring pixels so that edges stay crisp) with a light KL term."""
    model = build().to(device, memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        captioned = drawings.pixels[drawings.random(BATCH - OTHERS, generator)]
        other = others[torch.randint(len(others), (OTHERS,), generator=generator)]
        images, _ = data.compose(torch.cat([captioned, other]).to(device), generator, POSING)
        images = images.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample
        return reconstruction_error(decoded, images) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    fit(model, loss, directory=directory, steps=STEPS, learning_rate=LEARNING_RATE)


@torch.no_grad()
def load(drawings: data.Drawings, directory: Path) -> Any:
    """The trained autoencoder, its latents shifted and scaled to mean 0 and standard deviation 1 per channel.

    The normalisation is folded into the 1x1 convolutions around the latent, so no one who loads the model has to know of it.
    """
    model = build()
    model.load_state_dict(averaged(directory))
    model.requires_grad_(False).eval()
    images = data.random_batch(drawings, MEASURED, torch.Generator().manual_seed(1)).images
    latents = torch.cat([model.encode(chunk).latent_dist.mean for chunk in images.split(200)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    channels = len(mean)
    encode, decode = model.quant_conv, model.post_quant_conv
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()
    decode.bias += torch.einsum("oc,c->o", decode.weight[:, :, 0, 0], mean)
    decode.weight *= std[None, :, None, None]
    return model


def reconstruction_error(decoded: Tensor, images: Tensor) -> Tensor:
    edges = F.l1_loss(decoded.diff(dim=2), images.diff(dim=2)) + F.l1_loss(decoded.diff(dim=3), images.diff(dim=3))
    return F.l1_loss(decoded, images) + 2 * F.mse_loss(decoded, images) + 0.5 * edges


@torch.no_grad()
def signal_to_noise(model: Any, pixels: Tensor) -> float:
    """Mean peak signal-to-noise ratio, in decibels, of drawings (D, 4, 128, 128) posed at random and reconstructed."""
    images, _ = data.compose(pixels, torch.Generator().manual_seed(5), data.FREE)
    decoded = torch.cat([model.decode(model.encode(chunk).latent_dist.mean).sample for chunk in images.split(100)])
    errors = ((decoded.clamp(-1, 1) - images) / 2).square().flatten(1).mean(dim=1)
    return float((-10 * errors.log10()).mean())
