"""Chat completions over HTTP, with patience for a server that stumbles: time-outs, 429, 5xx and answers that are no answers are tried again."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from d3po.errors import ConfigError, RewardError
from d3po.feedback.vision.spending import Purse, Tokens

Answer = TypeVar("Answer", bound=BaseModel)

LONGEST_WAIT = 120.0
"""Seconds between two tries at most, whatever the server asks for."""
OK = 200
TEMPORARY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Status codes after which trying again may help."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a call is kept up."""

    timeout: float
    """Seconds that one try may take."""
    attempts: int
    first_wait: float = 1.0
    """Seconds after the first try; each wait is about twice the one before."""
    sleep: Callable[[float], None] = time.sleep


class _Message(BaseModel):
    content: str


class _Option(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """What of a chat completion is read here; everything else in it is ignored."""

    choices: list[_Option]
    usage: _Usage | None = None


class _StumbledError(Exception):
    """A try that failed for a reason that may pass."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoAnswerError(_StumbledError):
    """The server works and the model talks, but says nothing that can be read."""


class ChatClient:
    """Asks one endpoint; may be used from several threads.

    Args:
        url: up to and including `/v1`. Nothing is asked elsewhere: redirects are not followed.
        key: sent as a bearer token; it appears in no message of ours.
        patience: time-outs and tries.
        purse: pays for every try.

    Raises:
        ConfigError: the URL is none that can be asked.
    """

    def __init__(self, url: str, *, key: str | None, patience: Patience, purse: Purse) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigError(
                "judge.url has to be http://... or https://..., without a user or password in it, such as http://localhost:8000/v1"
            )
        self._url, self._key, self._patience, self._purse = url.rstrip("/"), key, patience, purse
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(timeout=patience.timeout, headers=headers, follow_redirects=False)

    def ask(self, body: Mapping[str, Any], kind: type[Answer]) -> Answer | None:
        """The model's answer, read as `kind`; None if it never said anything that can be read so.

        Raises:
            RewardError: the server refuses, or does not come back within all tries, or the money is spent.
        """
        tries = Retrying(
            stop=stop_after_attempt(self._patience.attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_StumbledError),
            sleep=self._patience.sleep,
            reraise=True,
        )
        try:
            return tries(self._try, body, kind)
        except _NoAnswerError:
            return None
        except _StumbledError as error:
            raise RewardError(
                f"the judge at {self._url} failed {self._patience.attempts} times, last: {error}; its answers so far are kept, run the same command again"
            ) from error

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def _try(self, body: Mapping[str, Any], kind: type[Answer]) -> Answer:
        self._purse.require_money()
        try:
            response = self._http.post(f"{self._url}/chat/completions", json=dict(body))
        except httpx2.TransportError as error:
            raise _StumbledError(f"{type(error).__name__}: {error}") from error
        if response.status_code in TEMPORARY:
            raise _StumbledError(self._words(response), _retry_after(response.headers.get("Retry-After")))
        if response.status_code != OK:
            raise RewardError(
                f"the judge at {self._url} refuses: {self._words(response)}; see judge.url, judge.model and the key in judge.key_variable"
            )
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError as error:
            raise _NoAnswerError("the body is no chat completion") from error
        if completion.usage:
            self._purse.pay(Tokens(read=completion.usage.prompt_tokens, written=completion.usage.completion_tokens))
        if not completion.choices:
            raise _NoAnswerError("the completion is empty")
        try:
            return kind.model_validate_json(completion.choices[0].message.content)
        except ValidationError as error:
            raise _NoAnswerError("the answer is not of the schema asked for") from error

    def _wait(self, state: RetryCallState) -> float:
        """What the server asks for, or twice as long as last time with jitter."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _StumbledError) and error.wait is not None:
            return min(error.wait, LONGEST_WAIT)
        first = self._patience.first_wait
        return wait_exponential_jitter(initial=first, max=LONGEST_WAIT, jitter=first)(state)

    def _words(self, response: httpx2.Response) -> str:
        """Status and the start of the body, in which a server may have repeated the key."""
        text = " ".join(response.text.split())[:200]
        return f"{response.status_code} {response.reason_phrase} {text.replace(self._key, '***') if self._key else text}".strip()


def _retry_after(header: str | None) -> float | None:
    """Seconds, from the header's number or date; None where there is nothing to be read."""
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
