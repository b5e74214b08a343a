"""Toxicity by Google's Perspective API, which the paper's detoxification experiment reports."""

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPErrorProcessor, Request, build_opener

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion

KEY_VARIABLE: Final = "PERSPECTIVE_API_KEY"
ENDPOINT: Final = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
LONGEST_WAIT: Final = 120.0
"""Seconds; a service that asks for more is not waited for."""


@dataclass(frozen=True)
class Perspective:
    """A score of the Perspective API, in [0, 1]: the probability that a reader sees the attribute.

    One request a completion, at most ``queries_per_second`` over all calls. Where the service is
    overloaded (429, 5xx), does not answer in time or cannot be reached, the request is repeated
    after ``backoff``, twice that, four times that, or later if it names a later time. An empty
    text is not sent: 0.0. Completions are sent to Google, which is asked not to store them; it
    has announced the end of the service for 31 December 2026.

    The key is sent as a header and is no field: it is in no repr, comparison, provenance or error.

    Raises:
        MetricError: No key; an option out of range; a request that the service refuses, in its
            own words; no answer after the last attempt; an answer that holds no score.

    >>> Perspective(key="secret", attribute="INSULT")
    Perspective(attribute='INSULT', language='en', name='perspective')
    """

    key: InitVar[str | None] = None
    """By default, what the environment variable PERSPECTIVE_API_KEY holds."""
    url: str = field(default=ENDPOINT, repr=False)
    attribute: str = "TOXICITY"
    """The paper's; also SEVERE_TOXICITY, IDENTITY_ATTACK, INSULT, PROFANITY, THREAT and others."""
    language: str = "en"
    """Named, for the service refuses short texts whose language it cannot tell."""
    queries_per_second: float = field(default=1.0, repr=False)
    """What a new project is allowed."""
    attempts: int = field(default=5, repr=False)
    """Requests for one text at most."""
    backoff: float = field(default=1.0, repr=False)
    """Seconds before the second attempt."""
    timeout: float = field(default=10.0, repr=False)
    """Seconds without a sign of the service that end an attempt."""
    name: str = "perspective"

    def __post_init__(self, key: str | None) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or "key" in parse_qs(address.query):
            raise MetricError(
                "url has to begin with http:// or https:// and to hold no key: give that as key="
            )
        for option in ("queries_per_second", "attempts", "backoff", "timeout"):
            if not getattr(self, option) > 0:
                raise MetricError(f"{option} is {getattr(self, option)}: give more than 0")
        secret = _Secret(_checked_key(key or os.environ.get(KEY_VARIABLE)))
        object.__setattr__(self, "_secret", secret)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One score a completion."""
        return [self._score(c.text) if c.text.strip() else 0.0 for c in completions]

    def _score(self, text: str) -> float:
        attempt = 0
        while True:
            attempt += 1
            _paces[self.url].wait(1 / self.queries_per_second)
            try:
                return self._ask(text)
            except _Passing as failure:
                if attempt == self.attempts or failure.wait > LONGEST_WAIT:
                    tried = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                    raise MetricError(
                        f"no score from the Perspective API after {tried}: {failure}; try again "
                        "later, lower queries_per_second, or raise attempts or timeout"
                    ) from failure
                time.sleep(max(failure.wait, self.backoff * 2 ** (attempt - 1)))

    def _ask(self, text: str) -> float:
        """One request; ``_Passing`` where another may succeed."""
        key: str = vars(self)["_secret"].value
        request = Request(
            self.url,
            data=json.dumps(self._body(text)).encode(),
            # By header, and not in the address, which shows up in logs and errors.
            headers={"Content-Type": "application/json", "X-Goog-Api-Key": key},
        )
        try:
            with build_opener(_AnyStatus).open(request, timeout=self.timeout) as response:
                status, headers, body = response.status, response.headers, response.read()
                body = body.replace(key.encode(), b"(key)")  # should it ever be echoed
        except (OSError, HTTPException) as error:
            raise _Passing(_unreached(error, self.timeout)) from error
        if status == 200:
            return _read_score(body, self.attribute)
        reason = f"it answered {status}: {_message(body)}"
        if status == 429 or status >= 500:
            raise _Passing(reason, _seconds(headers.get("Retry-After", "0")))
        raise MetricError(
            f"the Perspective API refused a text of {len(text)} characters; {reason} (attribute "
            f"{self.attribute!r}, language {self.language!r}, key by key= or {KEY_VARIABLE})"
        )

    def _body(self, text: str) -> dict[str, Any]:
        return {
            "comment": {"text": text},
            "languages": [self.language],
            "requestedAttributes": {self.attribute: {}},
            "doNotStore": True,
        }


class _Secret:
    """Keeps a key out of every repr, also of what holds it."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "(key)"


class _Passing(Exception):
    """A failure that may pass, and the seconds that the service wants to be left alone."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _AnyStatus(HTTPErrorProcessor):
    """Hands on every answer, errors and redirections too: the key goes to no other address."""

    def http_response(self, request: Request, response: Any) -> Any:  # noqa: ARG002 - as urllib calls it
        """The response as it is."""
        return response

    https_response = http_response


class _Pace:
    """When the last query to a service went out, whichever metric sent it."""

    def __init__(self) -> None:
        self.last = -math.inf

    def wait(self, interval: float) -> None:
        """Sleep until ``interval`` seconds after the last query."""
        time.sleep(max(0.0, self.last + interval - time.monotonic()))
        self.last = time.monotonic()


_paces: defaultdict[str, _Pace] = defaultdict(_Pace)
"""By url."""


def _checked_key(key: str | None) -> str:
    if not key:
        raise MetricError(
            f"the Perspective API needs a key: pass key=, or set {KEY_VARIABLE}; offline, a "
            "classifier does without one: Toxicity(model)"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise MetricError(
            f"the key for the Perspective API, {len(key)} characters, has a space, a line break or "
            "a letter that no key has: give it as it was issued"
        )
    return key


def _read_score(body: bytes, attribute: str) -> float:
    try:
        return float(json.loads(body)["attributeScores"][attribute]["summaryScore"]["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise MetricError(
            f"the Perspective API answered without a score for {attribute}: {_start(body)!r}; "
            "check url"
        ) from error


def _message(body: bytes) -> str:
    """The service's own words, or the start of whatever it sent."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return _start(body)


def _start(body: bytes) -> str:
    return body[:200].decode(errors="replace")


def _unreached(error: Exception, timeout: float) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps what happens before an answer
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout:g} s"
    return f"it was not reached ({type(cause).__name__}: {cause})"


def _seconds(named: str) -> float:
    """How long a ``Retry-After`` is: a number of seconds, or the time until a date."""
    try:
        if named.strip().isdigit():
            return float(named)
        return (parsedate_to_datetime(named) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return 0.0
