"""Reading a vision-language model's answer: its choice, and its log-odds if the server gives log-probs."""

import re
from collections.abc import Sequence
from math import exp, log
from typing import get_args

from pydantic import BaseModel

from d3po.vlm.questions import Choice, Verdict

CHOICES: tuple[Choice, ...] = get_args(Choice)
FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
BEFORE_CHOICE = re.compile(r'"choice"\s*:\s*"')
MOST_LOG_ODDS = 10.0
"""Bound on the log-odds: beyond it servers report arbitrary log-probs."""


class Alternative(BaseModel):
    """A token that the model could have written at some position."""

    token: str
    logprob: float


class Token(Alternative):
    """A token that the model wrote, with its alternatives."""

    top_logprobs: list[Alternative] = []


class Opinion(Verdict):
    """A verdict with its log-odds."""

    log_odds: float | None = None
    """log(p / (1 - p)), where p is the probability of `first` plus half that of `tie`; None if the server gave no log-probs."""


def opinion(text: str, tokens: Sequence[Token]) -> Opinion:
    """Read the opinion from an answer's text and tokens; the JSON may be in a code fence.

    Raises:
        ValidationError: the answer does not follow the schema.
    """
    fenced = FENCED.fullmatch(text)
    verdict = Verdict.model_validate_json(fenced[1] if fenced else text)
    return Opinion(choice=verdict.choice, reason=verdict.reason, log_odds=log_odds(tokens, verdict.choice))


def log_odds(tokens: Sequence[Token], choice: Choice) -> float | None:
    """Log-odds that the first picture is better, from the token with which the choice begins; None if they cannot be read.

    A choice that is not among the token's alternatives is taken to be as likely as the least likely alternative, which is an upper bound.
    """
    place = _place_of_choice(tokens)
    if place is None:
        return None
    token, before = place
    listed = {each.token: each.logprob for each in (*token.top_logprobs, token)}
    if len(listed) < 2 or _begun(token.token, before) != choice:
        return None
    least = exp(max(min(listed.values()), -2 * MOST_LOG_ODDS))
    known = dict.fromkeys(CHOICES, 0.0)
    for word, log_prob in listed.items():
        begun = _begun(word, before)
        if begun is not None:
            known[begun] += exp(log_prob)
    first, second, tie = (known[each] or least for each in CHOICES)
    odds = log((first + tie / 2) / (second + tie / 2))
    return max(-MOST_LOG_ODDS, min(odds, MOST_LOG_ODDS))


def _place_of_choice(tokens: Sequence[Token]) -> tuple[Token, str] | None:
    """The token with which the choice begins, and the text before the choice in that token, such as a quotation mark."""
    said = "".join(token.token for token in tokens)
    starts = [match.end() for match in BEFORE_CHOICE.finditer(said)]
    if not starts:
        return None
    end = 0
    for token in tokens:
        start, end = end, end + len(token.token)
        if end > starts[-1]:
            return token, token.token[: starts[-1] - start]
    return None


def _begun(word: str, before: str) -> Choice | None:
    """The choice with which a token begins; no two choices begin with the same letter."""
    letters = word[len(before) :].partition('"')[0] if word.startswith(before) else ""
    return next((choice for choice in CHOICES if letters and choice.startswith(letters)), None)
