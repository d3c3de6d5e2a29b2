"""Preference objectives: pure functions from log-ratios to one loss for each pair (or image) and step.

Shapes: S steps, N images, P pairs. `OBJECTIVES` lists the objectives by name with what each needs; `build` makes one with its settings.
"""

from d3po.objectives.base import ImageObjective, ImageTerms, Needs, PairObjective
from d3po.objectives.d3po import D3PO
from d3po.objectives.ddpo import DDPO
from d3po.objectives.dgpo import DGPO
from d3po.objectives.diffusion_dpo import DiffusionDPO
from d3po.objectives.diffusion_nft import DiffusionNFT
from d3po.objectives.dpok import DPOK
from d3po.objectives.ipo import IPO
from d3po.objectives.kto import KTO
from d3po.objectives.mapo import MaPO
from d3po.objectives.registry import OBJECTIVES, build
from d3po.objectives.reward_weighted import RewardWeighted
from d3po.objectives.sft import SFT

__all__ = [
    "D3PO",
    "DDPO",
    "DGPO",
    "DPOK",
    "IPO",
    "KTO",
    "OBJECTIVES",
    "SFT",
    "DiffusionDPO",
    "DiffusionNFT",
    "ImageObjective",
    "ImageTerms",
    "MaPO",
    "Needs",
    "PairObjective",
    "RewardWeighted",
    "build",
]
