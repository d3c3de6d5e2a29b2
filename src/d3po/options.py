"""The named choices shared by configuration and maths, in one place that imports nothing heavy."""

from typing import Literal

Spacing = Literal["leading", "trailing", "linspace"]
"""How a sampler spreads its steps over the training timesteps (names as in diffusers)."""

SamplerKind = Literal["model", "ddim", "euler_ancestral", "flow_sde"]
"""The reverse step; `model` is DDIM for discrete-time models and the SDE step for flow models."""

GuidanceKind = Literal["model", "cfg", "embedded", "none"]
"""Classifier-free (two network rows an image), a number that the network takes as input, or none; `model` is what the network was made for."""

Weights = Literal["float32", "bfloat16", "float16", "float64"]
"""Precision of a model's frozen weights (names as in torch)."""

Stored = Literal["float32", "float16", "float64"]
"""Precision in which the latents of a trajectory are kept."""

Arithmetic = Literal["weights", "float32"]
"""Precision of the denoiser's arithmetic: that of its frozen weights, or float32 whatever they are kept in."""

Decoding = Literal["whole", "sliced", "tiled"]
"""Latents become pictures all at once, one by one, or one by one in overlapping tiles (which only large pictures are cut into)."""

Dividing = Literal["no", "fsdp", "zero3"]
"""How a network too large for one device is divided among processes: not at all, by torch's FSDP2, or by DeepSpeed's ZeRO-3."""

TextEncoders = Literal["keep", "offload", "free"]
"""Between uses they stay on the device, wait on the CPU, or are dropped and loaded again when a new prompt comes."""

OptimizerName = Literal["adamw", "adamw8bit"]
"""AdamW with moments in float32, or in blocks of 8 bits."""

AdapterTargets = Literal["attention", "attention+conv", "linear"]
"""The layers that get an adapter: projections of attention, those and convolutions, or every linear layer."""

LogProbReduce = Literal["sum", "mean"]
"""`sum` is the joint log density of a step; `mean` divides it by the latent's dimensions, as published."""

Clip = Literal["none", "two_sided", "one_sided"]
"""How the objective cuts off log-ratios; see `d3po.objectives.d3po`."""

Targets = Literal["signed", "cross_entropy"]
"""How the objective reads a soft target; see `d3po.objectives.d3po`."""

StepWeighting = Literal["uniform", "balanced"]
"""`balanced` divides what a step counts by its sensitivity to the network's output, so that no step drowns the others."""

ReferenceRefresh = Literal["fixed", "per_round", "ema"]
"""The reference policy: the pretrained model, the round's start, or a moving average of the rounds' starts."""

LastStep = Literal["model", "clamped"]
"""Where the last step ends: as the model's scheduler says, or at timestep 0 as the published code does."""

JudgedPicture = Literal["finished", "expected"]
"""What of a sampled image is judged: its finished picture, or the one that the network expects right after the step in which it parted."""

QuestionKind = Literal["pair", "best_worst", "rank", "grid", "thumb", "score"]
"""How a question is asked: two pictures; best and worst of K; an order of K; mark the bad ones; one up or down; one from 1 to 5."""

Choosing = Literal["random", "adaptive"]
"""Which pairs of a prompt people are asked: drawn at random, or those that tell most after the votes so far."""

LabelKind = Literal["pairs", "likes", "scores"]
"""What an objective is told: which of two pictures is preferred, whether one is liked, or how good one is."""

ModelKind = Literal["any", "discrete", "flow"]
"""Kinds of models: of whole timesteps, or of flow matching."""

EvidenceKind = Literal["trajectories", "pictures"]
"""What an objective looks at: the denoising steps a picture was sampled by, or the finished picture alone, noised anew."""

ReferenceUse = Literal["none", "chosen", "sampler"]
"""Which policy an objective compares with: none, the one that `objective.reference` names, or always the one that sampled."""
