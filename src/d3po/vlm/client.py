"""A client of the chat completions API that retries after temporary failures: time-outs, status 429 and 5xx, unreadable answers."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError, WrapValidator
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set, wait_exponential_jitter

from d3po.errors import ConfigError, RewardError
from d3po.vlm.reading import Opinion, Token, opinion
from d3po.vlm.spending import Budget, TokenCount

LONGEST_WAIT = 120.0
"""The most seconds between two tries, whatever the server asks for."""
OK = 200
TEMPORARY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Status codes after which trying again may help."""
REFUSALS = frozenset({400, 403, 422})
"""Status codes with which servers refuse a parameter that the model does not support."""
DISPENSABLE = {"max_tokens": "max_completion_tokens", "temperature": "", "logprobs": "", "top_logprobs": ""}
"""Parameters that may be left out, with the name to use instead, if there is one."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long a call is tried."""

    timeout: float
    """The most seconds for one try."""
    attempts: int
    """The most tries."""
    first_wait: float = 1.0
    """Seconds between the first and the second try; each further wait is about twice the one before."""
    sleep: Callable[[float], None] | None = None
    """Waits for a number of seconds; the default also returns when the client gives up."""


def _or_none(value: Any, read: Callable[[Any], Any]) -> Any:
    """Validate an optional part of an answer; None if it is invalid, since servers return log-probs in several forms."""
    try:
        return read(value)
    except ValidationError:
        return None


class _LogProbs(BaseModel):
    content: list[Token]


class _Message(BaseModel):
    content: str | None = None


class _Option(BaseModel):
    message: _Message
    logprobs: Annotated[_LogProbs | None, WrapValidator(_or_none)] = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Bill(BaseModel):
    """The token usage of a completion, which is read before the rest, since it has to be paid whatever the answer is."""

    usage: _Usage | None = None


class _Completion(BaseModel):
    """The parts of a chat completion that are read; everything else is ignored."""

    choices: list[_Option]


class _StumbledError(Exception):
    """A try failed for a reason that may be temporary."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoAnswerError(_StumbledError):
    """The server answered, but the answer cannot be read."""


class ChatClient:
    """Sends requests to one endpoint. May be used from several threads.

    Args:
        url: the endpoint's address up to and including `/v1`. Redirects are not followed, so that nothing is sent elsewhere.
        key: sent as a bearer token; it appears in no message.
        patience: time-outs and number of tries.
        budget: counts the tokens of every try.

    Raises:
        ConfigError: the URL is invalid.
    """

    def __init__(self, url: str, *, key: str | None, patience: Patience, budget: Budget) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:  # half an IPv6 address
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigError(
                "vlm_judge.url must be http://... or https://..., without a user or password in it, such as http://localhost:8000/v1"
            )
        self._url, self._key, self._patience, self._budget = url.rstrip("/"), key, patience, budget
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._refused = set[str]()
        self._given_up = threading.Event()
        self._http = httpx2.Client(timeout=patience.timeout, headers=headers, follow_redirects=False)

    def ask(self, body: Mapping[str, Any]) -> Opinion | None:
        """Send a request and return the model's opinion; None if no try gave an answer that can be read.

        Raises:
            RewardError: the server refuses, all tries failed, or the budget is spent.
        """
        tries = Retrying(
            stop=stop_after_attempt(self._patience.attempts) | stop_when_event_set(self._given_up),
            wait=self._wait,
            retry=retry_if_exception_type(_StumbledError),
            sleep=self._sleep if self._patience.sleep is None else self._patience.sleep,
            reraise=True,
        )
        try:
            return tries(self._try, body)
        except _NoAnswerError:
            return None
        except _StumbledError as error:
            raise RewardError(
                f"the judge at {self._url} failed {self._patience.attempts} times, last: {error}; its answers so far are kept, run the same command again"
            ) from error

    def give_up(self) -> None:
        """Make calls in other threads end after their current try."""
        self._given_up.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _try(self, body: Mapping[str, Any]) -> Opinion:
        if self._given_up.is_set():
            raise RewardError(f"no more questions are sent to the judge at {self._url}")
        self._budget.require_money()
        response = self._post(body)
        if response.status_code in TEMPORARY:
            raise _StumbledError(self._words(response), _retry_after(response.headers.get("Retry-After")))
        if response.status_code != OK:
            raise RewardError(
                f"the judge at {self._url} refuses: {self._words(response)}; see vlm_judge.url, vlm_judge.model and the key in vlm_judge.key_variable"
            )
        try:
            usage = _Bill.model_validate_json(response.content).usage
            if usage:
                self._budget.pay(TokenCount(read=usage.prompt_tokens, written=usage.completion_tokens))
            choices = _Completion.model_validate_json(response.content).choices
        except ValidationError as error:
            raise _NoAnswerError("the body is no chat completion") from error
        if not choices or choices[0].message.content is None:
            raise _NoAnswerError("the completion is empty")
        try:
            return opinion(choices[0].message.content, choices[0].logprobs.content if choices[0].logprobs else ())
        except ValidationError as error:
            raise _NoAnswerError("the answer is not of the schema asked for") from error

    def _post(self, body: Mapping[str, Any]) -> httpx2.Response:
        """Send the body and return the response. Parameters that the server refuses are left out or renamed, in this and all later requests."""
        while True:
            sent = self._accepted(body)
            try:
                response = self._http.post(f"{self._url}/chat/completions", json=sent)
            except httpx2.TransportError as error:
                raise _StumbledError(f"{type(error).__name__}: {error}") from error
            refused = {name for name in DISPENSABLE if name in sent and re.search(rf"\b{name}\b", response.text, re.IGNORECASE)}
            if response.status_code not in REFUSALS or not refused:
                return response
            self._refused |= refused

    def _accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body with refused parameters left out or renamed."""
        renamed = {DISPENSABLE[name] if name in self._refused else name: value for name, value in body.items()}
        return {name: value for name, value in renamed.items() if name}

    def _sleep(self, seconds: float) -> None:
        self._given_up.wait(seconds)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, else about twice the last wait, with jitter."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _StumbledError) and error.wait is not None:
            return min(error.wait, LONGEST_WAIT)
        first = self._patience.first_wait
        return wait_exponential_jitter(initial=first, max=LONGEST_WAIT, jitter=first)(state)

    def _words(self, response: httpx2.Response) -> str:
        """Status and beginning of the body, with the key replaced, since a server may repeat it."""
        text = " ".join(response.text.split())[:200]
        return f"{response.status_code} {response.reason_phrase} {text.replace(self._key, '***') if self._key else text}".strip()


def _retry_after(header: str | None) -> float | None:
    """The seconds to wait, from the number or date of a Retry-After header; None if it is absent or cannot be read."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
