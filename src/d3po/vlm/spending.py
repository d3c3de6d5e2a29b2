"""What asking a model costs: counted as it happens, held against a cap, and estimated beforehand."""

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
"""Of English text, roughly."""
PAYMENT = re.compile(r"(\d+) (\d+)")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens read and written by a model."""

    read: int = 0
    written: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(read=self.read + other.read, written=self.written + other.written)

    def __mul__(self, times: int) -> "Tokens":
        return Tokens(read=self.read * times, written=self.written * times)


@dataclass(frozen=True, kw_only=True)
class Price:
    """Of a million tokens, in whatever currency; 0 for a model of your own."""

    read: float
    written: float

    def of(self, tokens: Tokens) -> float:
        """What these tokens cost."""
        return (tokens.read * self.read + tokens.written * self.written) / 1e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is going to be asked, roughly."""

    pairs: int
    tokens: Tokens
    cost: float

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs in both orders, {2 * self.pairs} calls, about {self.tokens.read:,} tokens read and "
            f"{self.tokens.written:,} written, about {self.cost:.2f} at the prices in [vlm_judge]"
        )


def estimate(pairs: int, *, criterion: str, prompt: str, picture_tokens: int, price: Price) -> Estimate:
    """Of asking about so many pairs, whose prompts are as long as this one."""
    words = words_of(request(model="", criterion=criterion, prompt=prompt, first=b"", second=b"", most_tokens=0))
    each = Tokens(read=2 * picture_tokens + len(words) // CHARACTERS_A_TOKEN, written=ANSWER_TOKENS)
    tokens = each * (2 * pairs)
    return Estimate(pairs=pairs, tokens=tokens, cost=price.of(tokens))


class Budget:
    """Counts what has been spent, from any thread, and says when the cap is reached.

    Args:
        price: of the model's tokens.
        cap: the most that may be spent; 0 is no cap.
        ledger: a file that every payment is added to as a line, so that the cap holds over several processes' lives.
    """

    def __init__(self, price: Price, *, cap: float, ledger: Path) -> None:
        self._price, self._cap, self._ledger = price, cap, ledger
        self._tokens = sum(_payments(ledger), Tokens())
        self._lock = threading.Lock()

    @property
    def tokens(self) -> Tokens:
        return self._tokens

    @property
    def cost(self) -> float:
        """Spent so far."""
        return self._price.of(self._tokens)

    def pay(self, tokens: Tokens) -> None:
        """Count what a call has cost.

        Raises:
            StorageError: the ledger cannot be written.
        """
        with self._lock:
            self._tokens = self._tokens + tokens
            with closing(GrowingFile(self._ledger)) as file:
                file.append(f"{tokens.read} {tokens.written}\n".encode())

    def require_money(self) -> None:
        """Before each call.

        Raises:
            RewardError: the cap is reached.
        """
        if self._cap and self.cost >= self._cap:
            raise RewardError(
                f"the judge has cost {self.cost:.2f} and vlm_judge.max_cost is {self._cap:g}; its answers so far are kept, "
                "raise the cap and run the same command again"
            )


def _payments(ledger: Path) -> Iterator[Tokens]:
    """The lines of a ledger; one cut short by a kill is left out."""
    if ledger.exists():
        for line in ledger.read_text(errors="replace").splitlines():
            if match := PAYMENT.fullmatch(line):
                yield Tokens(read=int(match[1]), written=int(match[2]))
