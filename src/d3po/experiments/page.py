"""One self-contained HTML page about a comparison: tables, figures, pictures, and how to read each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3po.evaluation.drawing import data_uri, template
from d3po.experiments.tables import Table

LEARNING = (
    "How far each objective has come after so many labels (left) and for so much computing (right). Points are rounds, lines means over seeds; the band, "
    "or with many objectives the bar at the end, is Student's 95 % interval over seeds. What is steeper on the left learns more from a label, on the "
    "right more from a pass of the network. The trained reward is in standard deviations of the base model's pictures; a cell that a guard stopped stays "
    "where it was stopped."
)
TRADE = (
    "What else has changed while the trained reward rose, round after round, from the base model where the dotted lines cross. A curve that goes right "
    "and up has found something that other judges like too; one that turns down is buying score: over-optimisation. Held-out rewards, in standard "
    "deviations of the base model's pictures, were never trained for."
)
PICTURES = "The first picture of held-out prompts from the same noise, by the base model and by each result of one seed. A picture shows a manner, not a rate."


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with how to read it: an SVG element, or a PNG."""

    title: str
    reading: str
    content: str | bytes

    @property
    def element(self) -> str:
        """As HTML."""
        return self.content if isinstance(self.content, str) else f'<img src="{data_uri(self.content)}" alt="{self.title}">'


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What was found for one reward."""

    title: str
    tables: Sequence[Table]
    figures: Sequence[Drawn]


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows."""

    title: str
    lead: str
    chapters: Sequence[Chapter]
    failed: Mapping[str, str]
    """The last words of cells that failed, by name."""
    spec: str
    versions: Mapping[str, str]


def render(page: Page) -> str:
    """The page as HTML, which needs no other file."""
    return template("comparison.html.j2").render(page=page)
