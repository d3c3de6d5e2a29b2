"""The text-conditioned denoiser: a three-level U-Net on 8x16x16 latents and a two-layer CLIP text model, trained together on v-prediction."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.base_model import drawings as data
from tools.base_model.fitting import averaged, fit

STEPS, BATCH, LEARNING_RATE = 8_000, 48, 1.2e-3
POSES = 40_000
TOKENS = 20
LEAST_SIGNAL = 1e-6
STYLE_SAID, BACKGROUND_SAID, POSE_SAID, CAPTION_DROPPED = 0.6, 0.7, 0.5, 0.1


def encode_poses(drawings: data.Drawings, autoencoder: Any, path: Path, *, device: str) -> None:
    """Compose `POSES` pictures, encode them once, and keep latents and caption parts in one safetensors file."""
    if path.exists():
        return
    generator = torch.Generator().manual_seed(2)
    autoencoder = autoencoder.to(device)
    latents: list[Tensor] = []
    parts: list[Tensor] = []
    for start in range(0, POSES, 500):
        batch = data.random_batch(drawings, min(500, POSES - start), generator)
        latents.append(autoencoder.encode(batch.images.to(device)).latent_dist.mean.half().cpu())
        parts.append(batch.parts)
    save_file({"latents": torch.cat(latents).contiguous(), "parts": torch.cat(parts)}, path)


def build_tokenizer() -> CLIPTokenizer:
    """Make a CLIP tokenizer whose byte pairs merge every caption word into one token; other words are split into letters."""
    plain = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    plain.normalizer = normalizers.Lowercase()
    plain.pre_tokenizer = pre_tokenizers.Split(" ", behavior="removed")
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    alphabet = [*letters, *(letter + "</w>" for letter in letters)]
    trainer = trainers.BpeTrainer(
        vocab_size=2_000,
        min_frequency=1,
        special_tokens=alphabet,  # numbered in this order before training, so that ties between pairs always break the same way
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    plain.train_from_iterator(data.vocabulary(), trainer)
    merges: Any = [(first, second) for first, second in json.loads(plain.to_str())["model"]["merges"]]
    tokens = ["<|startoftext|>", "<|endoftext|>", *alphabet, *(first + second for first, second in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)


def build_unet() -> Any:
    kind: Any = UNet2DConditionModel
    return kind(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(32, 80, 144),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_text_encoder(vocab_size: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=96,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def betas() -> list[float]:
    """The noise schedule: linear, ending at 0.012, and rescaled to almost no signal at its end (Lin et al. 2023, arXiv 2305.08891, algorithm 1).

    It has half the signal of the cosine schedule, as four times as many latents show as much of a form through the same noise. A millionth of
    signal is left at the end, as diffusers' stochastic DDIM step would take the root of a rounding error there.
    """
    kind: Any = DDIMScheduler
    signal = kind(beta_schedule="linear", beta_end=0.012, rescale_betas_zero_snr=True).alphas_cumprod.double()
    signal = LEAST_SIGNAL + (1 - LEAST_SIGNAL) * signal
    return [round(beta, 9) for beta in (1 - signal / torch.cat([signal.new_ones(1), signal[:-1]])).tolist()]


def build_scheduler() -> Any:
    return DDIMScheduler(
        trained_betas=betas(),
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # without effect on trailing steps; Stable Diffusion pipelines warn of any other value
        clip_sample=False,
    )


def train(poses: Path, directory: Path, *, device: str) -> None:
    """Fit v-prediction on the encoded poses; a tenth of the captions are empty, for classifier-free guidance."""
    tokenizer = build_tokenizer()
    pool = load_file(poses)
    scheduler = build_scheduler()
    unet, text_encoder = build_unet().to(memory_format=torch.channels_last), build_text_encoder(len(tokenizer))
    model = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pool["latents"]), (BATCH,), generator=generator)
        latents = pool["latents"][chosen].float().to(device)
        captions = [drawn_caption(parts, generator) for parts in pool["parts"][chosen].tolist()]
        noise = torch.randn(latents.shape, generator=generator).to(device)
        timesteps = torch.randint(int(scheduler.config["num_train_timesteps"]), (BATCH,), generator=generator).to(device)
        noised = scheduler.add_noise(latents, noise, timesteps)
        text = text_encoder(tokenize(tokenizer, captions).to(device))[0]
        return F.mse_loss(unet(noised, timesteps, text).sample, scheduler.get_velocity(latents, noise, timesteps))

    fit(model, loss, directory=directory, steps=STEPS, learning_rate=LEARNING_RATE)


def load_pipeline(autoencoder: Any, directory: Path) -> Any:
    """The newest averaged weights as a complete text-to-image pipeline."""
    tokenizer = build_tokenizer()
    unet, text_encoder = build_unet(), build_text_encoder(len(tokenizer))
    weights = averaged(directory)
    for name, module in (("unet.", unet), ("text_encoder.", text_encoder)):
        module.load_state_dict({k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}, strict=True)
    kind: Any = StableDiffusionPipeline
    return kind(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    return tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def drawn_caption(parts: list[int], generator: torch.Generator) -> str:
    """Draw a caption of a picture with these parts, each of which is named or left out at random; sometimes it is empty."""
    subject, view, style, background, *pose = parts
    dropped, say_style, say_background, *say_pose = torch.rand(7, generator=generator).tolist()
    if dropped < CAPTION_DROPPED:
        return ""
    said = [value if said < POSE_SAID else 0 for value, said in zip([view, *pose], say_pose, strict=True)]
    return data.caption(
        subject, said[0], style if say_style < STYLE_SAID else None, background if say_background < BACKGROUND_SAID else None, *said[1:]
    )
