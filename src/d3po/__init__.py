"""d3po: fine-tune diffusion models from comparisons, with no reward model.

The method is D3PO (Yang et al., CVPR 2024, arXiv 2311.13231). A run is a folder; see `d3po.run`.
"""

__all__ = ["__version__"]
__version__ = "0.1.0"
