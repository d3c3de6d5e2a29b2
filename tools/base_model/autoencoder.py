"""The autoencoder: 32x32 RGB to 8x8x8 latents and back. Its decoder has seen only clean drawings, so it draws no speckle."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from tools.base_model import drawings as data
from tools.base_model.fitting import averaged, fit

STEPS, BATCH, LEARNING_RATE = 5_000, 16, 2e-3
KL_WEIGHT = 5e-4


def build() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 48, 64),
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=data.IMAGE_SIZE,
        scaling_factor=1.0,
    )


def train(drawings: Tensor, directory: Path) -> None:
    """Fit reconstruction (L1, plus L1 of differences between neighbouring pixels so that edges stay crisp) with a light KL term."""
    model = build()

    def loss(generator: torch.Generator) -> Tensor:
        batch = data.compose(drawings, *random_pairs(drawings, BATCH, generator), generator)
        posterior = model.encode(batch.images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample
        return reconstruction_error(decoded, batch.images) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    fit(model, loss, directory=directory, steps=STEPS, learning_rate=LEARNING_RATE)


def load(drawings: Tensor, directory: Path) -> AutoencoderKL:
    """The trained autoencoder, its latents shifted and scaled to mean 0 and standard deviation 1 per channel.

    The normalisation is folded into the 1x1 convolutions around the latent, so no one who loads the model has to know of it.
    """
    model = build()
    model.load_state_dict(averaged(directory))
    model.requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(1)
    images = data.compose(drawings, *random_pairs(drawings, 2_000, generator), generator).images
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
    return F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 0.5 * edges


def random_pairs(drawings: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of `count` drawings, subjects and styles drawn uniformly."""
    subjects = torch.randint(drawings.shape[0], (count,), generator=generator)
    return subjects, torch.randint(drawings.shape[1], (count,), generator=generator)
