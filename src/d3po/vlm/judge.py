"""A vision-language model that judges pairs. It is asked in both orders, so that a preference for one position can be told from one for a picture."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import exp
from pathlib import Path

from d3po.annotation.agreement import Proportion
from d3po.artifacts.files import read_bytes
from d3po.artifacts.run_pictures import SAMPLE_AGAIN
from d3po.preferences.records import Answer
from d3po.vlm.cache import VerdictCache
from d3po.vlm.client import ChatClient
from d3po.vlm.questions import Choice, request
from d3po.vlm.reading import Opinion

TURNED: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie"}
"""The choice that means the same when the pictures are in the opposite order."""


@dataclass(frozen=True, kw_only=True)
class PicturePair:
    """Two pictures of one prompt."""

    prompt: str
    image_a: int
    image_b: int
    path_a: Path
    path_b: Path
    checksum_a: str | None = None
    """SHA-256 of the file that was written; None if it was not recorded."""
    checksum_b: str | None = None
    """SHA-256 of the file that was written; None if it was not recorded."""


@dataclass(frozen=True, kw_only=True)
class BothOrders:
    """The model's choices for a pair in both orders."""

    a_first: Choice | None
    """The choice when picture a is shown first; None if the model gave no answer."""
    b_first: Choice | None
    """The choice when picture b is shown first; None if the model gave no answer."""
    log_odds: float | None = None
    """Log-odds that a is better, averaged over both orders, so that a preference for one position cancels. None if log-probs are missing."""

    @property
    def consistent(self) -> bool:
        """Whether the model gave an answer in both orders, and both prefer the same picture or say tie."""
        return self.a_first is not None and self.b_first is not None and self.a_first == TURNED[self.b_first]

    def answer(self, pair: PicturePair) -> Answer:
        """The answer to record as a vote.

        It is a skip if an answer is missing; otherwise a share of preference if the log-odds are known; otherwise the choice on which both orders agree, or
        a tie if they differ.
        """
        if self.a_first is None or self.b_first is None:
            return Answer(outcome="skip")
        if self.log_odds is not None:
            share = 1 / (1 + exp(-self.log_odds))
            return Answer(outcome="share", values={pair.image_a: share, pair.image_b: 1 - share})
        if not self.consistent or self.a_first == "tie":
            return Answer(outcome="tie")
        return Answer(outcome="win", winner=pair.image_a if self.a_first == "first" else pair.image_b)


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How consistently a judge answered over many pairs."""

    consistent: Proportion
    """Pairs with the same answer in both orders; a missing answer counts as inconsistent."""
    first: Proportion
    """Answers that prefer the picture shown first, of those that are not ties. Without a preference for a position it is about half."""

    def __str__(self) -> str:
        return f"consistent on {self.consistent}, chose the first picture in {self.first}"


def conduct(verdicts: Iterable[BothOrders]) -> Conduct:
    """Compute a judge's conduct over all its verdicts."""
    known = list(verdicts)
    decided = [choice for both in known for choice in (both.a_first, both.b_first) if choice in ("first", "second")]
    return Conduct(
        consistent=Proportion(count=sum(both.consistent for both in known), total=len(known)),
        first=Proportion(count=decided.count("first"), total=len(decided)),
    )


@dataclass(frozen=True, kw_only=True)
class VisionJudge:
    """Asks the model about pairs. It does not ask what is in the cache, nor about two identical pictures, which tie."""

    model: str
    criterion: str
    client: ChatClient
    cache: VerdictCache
    concurrency: int
    """The most calls at a time."""
    most_tokens: int
    """The most tokens of an answer."""

    def judge_all(self, pairs: Sequence[PicturePair], advance: Callable[[], None]) -> list[BothOrders]:
        """Judge the pairs and return the verdicts in the same order; `advance` is called after each pair.

        Raises:
            RewardError: the server fails or refuses, or the budget is spent. Answers received until then are kept in the cache.
            CorruptFileError: a picture is gone or not what was written.
        """
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._judge, pair) for pair in pairs]
            try:
                for future in as_completed(futures):
                    future.result()
                    advance()
            except BaseException:
                self.client.give_up()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _judge(self, pair: PicturePair) -> BothOrders:
        a = read_bytes(pair.path_a, remedy=SAMPLE_AGAIN, checksum=pair.checksum_a)
        b = read_bytes(pair.path_b, remedy=SAMPLE_AGAIN, checksum=pair.checksum_b)
        if a == b:
            return BothOrders(a_first="tie", b_first="tie")
        a_first, b_first = self._opinion(pair.prompt, a, b), self._opinion(pair.prompt, b, a)
        return BothOrders(a_first=a_first and a_first.choice, b_first=b_first and b_first.choice, log_odds=_mean_log_odds(a_first, b_first))

    def _opinion(self, prompt: str, first: bytes, second: bytes) -> Opinion | None:
        opinion = self.cache.get(prompt, first, second)
        if opinion is None:
            opinion = self.client.ask(
                request(model=self.model, criterion=self.criterion, prompt=prompt, first=first, second=second, most_tokens=self.most_tokens)
            )
            if opinion is not None:
                self.cache.put(prompt, first, second, opinion)
        return opinion


def _mean_log_odds(a_first: Opinion | None, b_first: Opinion | None) -> float | None:
    """The mean log-odds that a is better, from the opinions with a shown first and with b shown first; None if either lacks log-odds."""
    if a_first is None or b_first is None or a_first.log_odds is None or b_first.log_odds is None:
        return None
    return (a_first.log_odds - b_first.log_odds) / 2
