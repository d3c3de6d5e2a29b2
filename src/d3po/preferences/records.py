"""The one preference record that every source of feedback writes and every objective reads."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """A sampled image: who it is, where its picture and its trajectory lie."""

    id: int
    round: int
    prompt_id: int
    prompt: str
    number: int
    """Its place among the K images of its prompt, from 0."""
    shard_id: int
    row: int
    """Its row in the shard's batch dimension."""
    path: str
    """The PNG, relative to the run folder."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A finished trajectory shard."""

    id: int
    round: int
    number: int
    path: str
    """Relative to the run folder."""
    checksum: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One judgement of two images of one prompt, by id, never by position."""

    image_a: int
    image_b: int
    target: float
    """The share of preference that a holds: 1 a is preferred, 0 b is, 0.5 a tie."""
    weight: float = 1.0
    annotator: str

    def __post_init__(self) -> None:
        if self.image_a == self.image_b:
            raise ValueError(f"image {self.image_a} is compared with itself")
        if not 0 <= self.target <= 1:
            raise ValueError(f"target is {self.target}; a share of preference lies in [0, 1]")
        if not self.weight >= 0:
            raise ValueError(f"weight is {self.weight}; it must be 0 or more")

    @property
    def is_tie(self) -> bool:
        """Whether it says nothing about which is better."""
        return self.target == 0.5
