"""The style of figures, and how they are embedded in a page."""

import base64
import io

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, Template
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "d3po"
INK, ACCENT, SECOND = "#3b3b46", "#c2410c", "#1d6fa5"


def titled(axes: Axes, title: str, x: str) -> None:
    """Set the title of a panel and the label of its horizontal axis."""
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def svg(figure: Figure) -> str:
    """Render a figure as an SVG element for a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().split("?>", 1)[-1].split('.dtd">', 1)[-1]


def png(figure: Figure) -> bytes:
    """Render a figure as a PNG at 150 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def picture_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture of shape (height, width, 3) as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """Encode a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def template(name: str) -> Template:
    """Load the template of a page from the folder `templates`. It escapes all values."""
    environment = Environment(loader=PackageLoader("d3po.evaluation"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name)
