"""One HTTP endpoint to post incidents to: verified TLS, no redirects, bounded time and answers, no secrets told."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
    TimeoutError,
)

from schemas.errors import BadSettings, DeliveryFailed
from sinks.deadline import Deadline, pool_manager
from sinks.secrets import HIDDEN, Secret, as_secret

CONNECT_S = 5.0
READ_S = 10.0
MAX_ANSWER_BYTES = 65_536
SNIPPET_CHARS = 200
RETRYABLE_4XX = frozenset({408, 425, 429})
"""Request Timeout, Too Early, Too Many Requests: https://www.rfc-editor.org/rfc/rfc9110#section-15.5"""


def _no_addresses(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO


# At DEBUG urllib3 logs the path of every request, and the path of a Slack webhook is its password.
logging.getLogger("urllib3.connectionpool").addFilter(_no_addresses)
# And this one warns of malformed answers with the whole address.
logging.getLogger("urllib3.connection").addFilter(lambda _record: False)


class Reply(NamedTuple):
    """What the receiver answered; the body is cut at `MAX_ANSWER_BYTES`."""

    status: int
    body: bytes
    retry_after_s: float | None

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_url(url: Secret, what: str, *, allow_http: bool = False) -> None:
    """Refuse an address that alerts must not be sent to.

    Parameters
    ----------
    what
        The destination, as the error message should name it.
    allow_http
        Whether plain HTTP may leave this machine.

    Raises
    ------
    BadSettings
        Not an absolute http(s) address of visible ASCII characters (a backslash is read differently by different
        parsers), or plain HTTP to another machine.
    """
    try:
        parts = urlsplit(url.reveal())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[^!-\[\]-~]", url.reveal()):
        raise BadSettings(f"{what}: `url` must be an absolute address that starts with https://")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise BadSettings(f"{what}: `url` must start with https:// (plain http is for this machine only)")


def retry_after_s(headers: Mapping[str, str], clock: Callable[[], float]) -> float | None:
    """Read `Retry-After`: seconds, or a date, which is compared with the receiver's own `Date` where it gives one."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value, re.ASCII):
        return float(value)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        since = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        since = clock()
    return max(0.0, until - since)


class Endpoint:
    """An address to post to.

    Parameters
    ----------
    label
        Names the destination in errors: "slack `ops`".
    url
        Where to. Its path may be a password, so no error shows more than the host.
    secrets
        Further texts that no error may show, even if the receiver echoes them.
    connect_s, read_s
        Seconds until a connection attempt, and until an answer, counts as failed.
    headers
        Sent with every request.
    clock
        Epoch seconds; only for a `Retry-After` date from a receiver that does not tell its own time.
    """

    def __init__(
        self,
        label: str,
        url: Secret | str,
        *,
        secrets: Iterable[Secret] = (),
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        self._url = as_secret(url)
        self._read_s = read_s
        self._connect_s = connect_s
        self._clock = clock
        self._monotonic = monotonic
        parts = urlsplit(self._url.reveal())
        self.host = parts.hostname or ""
        self._headers = {"User-Agent": "tidegauge", **(headers or {})}
        address = self._url.reveal()
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers.update(urllib3.make_headers(basic_auth=login))
            address = address.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1)
        self._address = Secret(address)
        self._hidden = _hideable([self._url.reveal(), address, *(s.reveal() for s in secrets)])
        self._deadline = Deadline()
        self._pool = pool_manager(self._deadline, urllib3.Timeout(connect=connect_s, read=read_s))

    def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Post JSON and return the answer, whatever its status.

        Raises
        ------
        DeliveryFailed
            There was no answer, or it did not end in time: retryable.
        """
        sent = {"Content-Type": "application/json", **self._headers, **(headers or {})}
        try:
            with self._deadline.within(self._connect_s + 2 * self._read_s):
                answer = self._pool.request(
                    "POST", self._address.reveal(), body=body, headers=sent, redirect=False, preload_content=False
                )
                try:
                    text = self._read(answer)
                finally:
                    # An answer that was not read to its end would spoil the next one on this connection.
                    answer.close()
            if self._deadline.passed:
                # What was cut off may look whole: the head of an answer needs no proper end.
                raise TimeoutError("answer too slow")
        except (HTTPError, OSError, ValueError) as error:
            # `from None`: the text of urllib3's errors, and so a printed traceback, holds the path of the address.
            raise self._unreachable(error) from None
        return Reply(answer.status, text, retry_after_s(answer.headers, self._clock))

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """Read the answer up to its limits of size and time: a receiver may drip one byte per read time-out."""
        deadline = self._monotonic() + self._read_s
        text = b""
        while len(text) < MAX_ANSWER_BYTES:
            piece = answer.read1(MAX_ANSWER_BYTES - len(text), decode_content=False)
            if not piece:
                break
            text += piece
            if self._monotonic() > deadline:
                raise TimeoutError("answer too slow")
        return text

    def _unreachable(self, error: Exception) -> DeliveryFailed:
        # The order matters: to urllib3 a refused connection is a kind of time-out.
        if isinstance(error, NameResolutionError):
            what = "the name cannot be resolved; no connection"
        elif isinstance(error, NewConnectionError):
            what = "cannot connect"
        elif isinstance(error, ConnectTimeoutError):
            what = f"no connection within {self._connect_s:g} s"
        elif isinstance(error, TimeoutError) or self._deadline.passed:
            what = f"no answer within {self._read_s:g} s"
        elif isinstance(error, SSLError):
            what = f"TLS failed ({self.redact(str(error))[:SNIPPET_CHARS]})"
        else:
            what = f"connection broken ({type(error).__name__})"
        return DeliveryFailed(f"{self.label}: {what} to {self.host}; will be retried.", retryable=True)

    def refused(self, reply: Reply, *, advice: str, retryable: bool | None = None) -> DeliveryFailed:
        """Say that the receiver did not take it.

        Parameters
        ----------
        advice
            What to check if it is not retried.
        retryable
            None: by status; 408, 425, 429 and 5xx are, other statuses are not.
        """
        if retryable is None:
            retryable = reply.status in RETRYABLE_4XX or reply.status >= 500
        snippet = self.redact(reply.body.decode("utf-8", "replace"))
        snippet = " ".join("".join(c if c.isprintable() else " " for c in snippet).split())[:SNIPPET_CHARS]
        said = f" ({snippet})" if snippet else ""
        then = "will be retried." if retryable else f"not retried. {advice}"
        message = f"{self.label}: HTTP {reply.status}{said}, {then}"
        return DeliveryFailed(message, retryable=retryable, retry_after_s=reply.retry_after_s if retryable else None)

    def redact(self, text: str) -> str:
        """Replace everything secret in a text of the receiver's by `***`."""
        for hidden in self._hidden:
            text = text.replace(hidden, HIDDEN)
        return text

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _hideable(texts: Iterable[str]) -> list[str]:
    """Everything that must not be shown: each text, and what makes an address secret (login, path, query)."""
    hidden: set[str] = set()
    for text in texts:
        hidden.add(text)
        if "://" in text:
            parts = urlsplit(text)
            hidden.update(p for p in (parts.password, parts.query, parts.fragment) if p)
            # Short parts such as `/v2` are no secrets, and hiding them would garble every answer.
            hidden.update(p for p in (parts.path, parts.path.strip("/"), *parts.path.split("/")) if len(p) >= 8)
    hidden.update([unquote(text) for text in hidden])
    return sorted(hidden, key=lambda text: (-len(text), text))
