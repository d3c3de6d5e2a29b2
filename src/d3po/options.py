"""The named choices that configuration and maths share. This module imports nothing heavy."""

from typing import Literal

Spacing = Literal["leading", "trailing", "linspace"]
"""How a sampler spreads its steps over the training timesteps (names as in diffusers)."""

SamplerKind = Literal["model", "ddim", "euler_ancestral", "flow_sde"]
"""The reverse step; `model` is DDIM for discrete-time models and the SDE step for flow models."""

GuidanceKind = Literal["model", "cfg", "embedded", "none"]
"""How guidance is applied: classifier-free (two forward passes an image), as an input of the network, or not at all; `model`: as the network was made for."""

Weights = Literal["float32", "bfloat16", "float16", "float64"]
"""Precision of a model's frozen weights (names as in torch)."""

Stored = Literal["float32", "float16", "float64"]
"""Precision in which the latents of a trajectory are kept."""

Arithmetic = Literal["weights", "float32"]
"""Precision of the denoiser's arithmetic: that of its frozen weights, or float32 whatever they are kept in."""

Decoding = Literal["whole", "sliced", "tiled"]
"""Latents are decoded all at once, one by one, or one by one in overlapping tiles (only large pictures are cut into tiles)."""

Dividing = Literal["no", "fsdp", "zero3"]
"""How a network that is too large for one device is sharded across processes: not at all, by torch's FSDP2, or by DeepSpeed's ZeRO-3."""

TextEncoders = Literal["keep", "offload", "free"]
"""Where text encoders are between uses: on the device, on the CPU, or unloaded and loaded again when a new prompt comes."""

OptimizerName = Literal["adamw", "adamw8bit"]
"""AdamW with its moments in float32, or quantised in blocks to 8 bits."""

AdapterTargets = Literal["attention", "attention+conv", "linear"]
"""The layers that get an adapter: attention projections, attention projections and convolutions, or every linear layer."""

LogProbReduce = Literal["sum", "mean"]
"""`sum` is the joint log density of a step; `mean` divides it by the number of latent dimensions, as in the published code."""

Clip = Literal["none", "two_sided", "one_sided"]
"""How the objective clips log-ratios; see `d3po.objectives.d3po`."""

Targets = Literal["signed", "cross_entropy"]
"""How the objective uses a soft target; see `d3po.objectives.d3po`."""

ErrorWeighting = Literal["self_normalised", "uniform"]
"""How the objective weighs a denoising error; see `d3po.objectives.diffusion_nft`."""

StepWeighting = Literal["uniform", "balanced"]
"""`balanced` divides each step's weight by the step's sensitivity to the network's output, so that no step dominates the gradient."""

ReferenceRefresh = Literal["fixed", "per_round", "ema"]
"""The reference policy: the pretrained model, the policy at the round's start, or a moving average of the policies at the rounds' starts."""

LastStep = Literal["model", "clamped"]
"""Where the last step ends: as the model's scheduler says, or at timestep 0 as in the published code."""

BranchNoise = Literal["onward", "step"]
JudgedPicture = Literal["finished", "expected"]
"""Which picture of a sampled image is compared: the finished one, or the network's estimate right after the branching step."""

QuestionKind = Literal["pair", "best_worst", "rank", "grid", "thumb", "score"]
"""How a question is asked: prefer one of two; best and worst of K; rank K; mark the bad ones; thumb up or down; score from 1 to 5."""

Choosing = Literal["random", "adaptive"]
"""Which pairs of a prompt people are asked about: random ones, or the most informative ones, given the votes so far."""

LabelKind = Literal["pairs", "likes", "scores"]
"""The labels that an objective reads: which of two pictures is preferred, whether one is liked, or how good one is."""

ModelKind = Literal["any", "discrete", "flow"]
"""Kinds of diffusion models: with discrete timesteps, or flow matching."""

EvidenceKind = Literal["trajectories", "pictures"]
"""What an objective is computed on: the denoising steps by which a picture was sampled, or the finished picture with fresh noise."""

ReferenceUse = Literal["none", "chosen", "sampler"]
"""The reference policy of an objective: none, the one that `objective.reference` names, or always the policy that sampled the pictures."""
