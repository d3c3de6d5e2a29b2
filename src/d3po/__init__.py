"""d3po: fine-tune diffusion models from comparisons, with no reward model.

The method is D3PO (Yang et al., CVPR 2024, arXiv 2311.13231). A run is a folder, and `Run` is the Python object for it (docs/library.md). Importing
this package loads no heavy library; accessing `Run` does.
"""

from typing import TYPE_CHECKING

from d3po.version import __version__

if TYPE_CHECKING:
    from d3po.library import Run

__all__ = ["Run", "__version__"]


def __getattr__(name: str) -> object:
    if name != "Run":
        raise AttributeError(f"module 'd3po' has no attribute {name!r}; it has {', '.join(__all__)}")
    from d3po.library import Run

    return Run
