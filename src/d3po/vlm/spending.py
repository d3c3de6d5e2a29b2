"""The cost of asking a model: estimated beforehand, counted as it arises, and limited by a cap."""

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from d3po.artifacts.files import GrowingFile
from d3po.errors import RewardError
from d3po.vlm.questions import ANSWER_TOKENS, request, words_of

CHARACTERS_A_TOKEN = 4
"""Characters in a token of English text, roughly."""
PAYMENT = re.compile(r"(\d+) (\d+)")
"""A line of the ledger: tokens read, tokens written."""


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """Tokens read and written by a model."""

    read: int = 0
    written: int = 0

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(read=self.read + other.read, written=self.written + other.written)

    def __mul__(self, times: int) -> "TokenCount":
        return TokenCount(read=self.read * times, written=self.written * times)


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price of a million tokens, in any currency; 0 for a model that costs nothing."""

    read: float
    written: float

    def of(self, tokens: TokenCount) -> float:
        """The cost of these tokens."""
        return (tokens.read * self.read + tokens.written * self.written) / 1e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A rough estimate of calls, tokens and cost."""

    pairs: int
    tokens: TokenCount
    cost: float

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs in both orders, {2 * self.pairs} calls, about {self.tokens.read:,} tokens read and "
            f"{self.tokens.written:,} written, about {self.cost:.2f} at the prices in [vlm_judge]"
        )


def estimate(pairs: int, *, criterion: str, prompt: str, picture_tokens: int, price: Price) -> Estimate:
    """Estimate tokens and cost of asking about `pairs` pairs with prompts as long as `prompt`."""
    words = words_of(request(model="", criterion=criterion, prompt=prompt, first=b"", second=b"", most_tokens=0))
    each = TokenCount(read=2 * picture_tokens + len(words) // CHARACTERS_A_TOKEN, written=ANSWER_TOKENS)
    tokens = each * (2 * pairs)
    return Estimate(pairs=pairs, tokens=tokens, cost=price.of(tokens))


class Budget:
    """Counts spending, from any thread, and enforces a cap.

    Args:
        price: the price of the model's tokens.
        cap: the most that may be spent; 0 is no cap.
        ledger: a file to which every payment is appended as a line, so that the cap also holds when a command is run again.
    """

    def __init__(self, price: Price, *, cap: float, ledger: Path) -> None:
        self._price, self._cap, self._ledger = price, cap, ledger
        self._tokens = sum(_payments(ledger), TokenCount())
        self._lock = threading.Lock()

    @property
    def tokens(self) -> TokenCount:
        return self._tokens

    @property
    def cost(self) -> float:
        """The cost so far."""
        return self._price.of(self._tokens)

    def pay(self, tokens: TokenCount) -> None:
        """Count the tokens of a call.

        Raises:
            StorageError: the ledger cannot be written.
        """
        with self._lock:
            self._tokens = self._tokens + tokens
            with closing(GrowingFile(self._ledger)) as file:
                file.append(f"{tokens.read} {tokens.written}\n".encode())

    def require_money(self) -> None:
        """Check, before a call, that the cap is not reached.

        Raises:
            RewardError: the cap is reached.
        """
        if self._cap and self.cost >= self._cap:
            raise RewardError(
                f"the judge has cost {self.cost:.2f} and vlm_judge.max_cost is {self._cap:g}; its answers so far are kept, "
                "raise the cap and run the same command again"
            )


def _payments(ledger: Path) -> Iterator[TokenCount]:
    """The payments in a ledger; a line that was cut short by a kill is ignored."""
    if ledger.exists():
        for line in ledger.read_text(errors="replace").splitlines():
            if match := PAYMENT.fullmatch(line):
                yield TokenCount(read=int(match[1]), written=int(match[2]))
