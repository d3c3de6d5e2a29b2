"""Renders a self-contained HTML page about a comparison: tables, figures and pictures, each with an explanation of how to read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3po.evaluation.drawing import data_uri, template
from d3po.experiments.tables import Table

LEARNING = (
    "How far each objective has come, by labels (left) and by computation (right). Points are rounds, lines are means over seeds. The band, or with many "
    "objectives the bar at the end, is Student's 95 % interval over seeds. A steeper curve on the left learns more from each label; a steeper curve on the "
    "right learns more from each forward pass of the network. The trained reward is in standard deviations over the base model's pictures. A cell that a "
    "guard stopped keeps its last values."
)
TRADE = (
    "What else changed while the trained reward rose, round after round. Curves start at the base model, where the dotted lines cross. A curve that goes "
    "right and up is an improvement by other rewards too; a curve that turns down is over-optimisation. Held-out rewards are in standard deviations over "
    "the base model's pictures; nothing was trained for them."
)
PICTURES = (
    "The first picture of each held-out prompt from the same noise, by the base model and by the results of one seed. A single picture shows a style; "
    "it says nothing about how often it occurs."
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with an explanation of how to read it. Its content is an SVG element, or a PNG."""

    title: str
    reading: str
    content: str | bytes

    @property
    def element(self) -> str:
        """The figure as an HTML element."""
        return self.content if isinstance(self.content, str) else f'<img src="{data_uri(self.content)}" alt="{self.title}">'


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """The results for one reward."""

    title: str
    tables: Sequence[Table]
    figures: Sequence[Drawn]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page shows."""

    title: str
    lead: str
    chapters: Sequence[Chapter]
    failed: Mapping[str, str]
    """The last line of output of each cell that failed, by the cell's name."""
    spec: str
    versions: Mapping[str, str]


def render(page: Page) -> str:
    """Render the page as HTML that needs no other file."""
    return template("comparison.html.j2").render(page=page)
