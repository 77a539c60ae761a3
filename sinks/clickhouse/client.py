"""Connections to ClickHouse: a server over HTTP, or the embedded engine, behind the same client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, ProgrammingError
from clickhouse_connect.driver.httpclient import HttpClient
from urllib3 import Timeout

from schemas.errors import BadSettings, DeliveryFailed

DEFAULT_DATABASE = "tidegauge"

CONNECT_TIMEOUT_S = 5
HELLO_TIMEOUT_S = 5
"""A server that hangs must not hold up a start, nor be noticed late when it is back: its first answers come soon."""

REQUEST_TIMEOUT_S = 60
"""An insert of one batch takes milliseconds; a server that is silent for so long is treated as down."""

MAX_ERROR_CHARS = 300

BUSY_CODES: frozenset[int] = frozenset(
    {74, 75, 76, 159, 173, 202, 209, 210, 236, 241, 242, 243, 252, 319, 425, 439, 473, 999}
)
"""Error codes of a server that cannot just now: files it cannot read, write or open, timeouts, memory it is not given,
too many queries, sockets, network, an insert broken off, its own memory limit, table read-only, no disk space, too many
parts, an insert of unknown outcome, system error, no thread to be had, deadlock, Keeper.
https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SECRETS = re.compile(
    r"(?P<url>://[^/@\s]*@)"
    r"|(?P<key>\b(?:password|passwd|secret|token|authorization|x-clickhouse-key)\b['\"]?\s*[=:]\s*['\"]?(?:basic\s+|bearer\s+)?)[^\s,;&'\"]+",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?: with url: |\(for url )\S+")
_DATA = re.compile(r"(?:While executing|\(while reading|: while converting|Row \d+:|Stack trace).*", re.DOTALL)


class Address(NamedTuple):
    """Where the database is, without any secret."""

    interface: Literal["chdb", "http", "https"]
    path: str
    """Directory of the embedded engine; empty for a server."""
    host: str
    port: int
    user: str
    database: str


def parse(url: str) -> Address:
    """Read a database URL: `chdb://PATH` or `http(s)://[USER@]HOST[:PORT][/DATABASE]`.

    Raises
    ------
    BadSettings
        What is wrong with it. The message never repeats a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("chdb", "http", "https"):
        raise BadSettings("clickhouse.url: expected chdb://PATH or http(s)://[USER@]HOST:PORT/DATABASE")
    if scheme == "chdb":
        if not rest:
            raise BadSettings(
                "clickhouse.url: chdb:// needs the directory of the database, such as chdb://.tidegauge/db"
            )
        return Address("chdb", rest, "", 0, "", DEFAULT_DATABASE)
    try:
        parts = urlsplit(url)
        port = parts.port or (8443 if scheme == "https" else 8123)
    except ValueError as error:
        raise BadSettings("clickhouse.url: the port is not a number") from error
    if parts.password is not None:
        raise BadSettings("clickhouse.url: holds a password; put it into clickhouse.password_file instead")
    if not parts.hostname or parts.query or parts.fragment:
        raise BadSettings("clickhouse.url: expected http(s)://[USER@]HOST:PORT/DATABASE, without options")
    database = parts.path.strip("/") or DEFAULT_DATABASE
    if not _NAME.match(database):
        raise BadSettings("clickhouse.url: the database's name may hold letters, digits and _ only")
    return Address(
        "https" if scheme == "https" else "http",
        "",
        parts.hostname,
        port,
        unquote(parts.username) if parts.username else "default",
        database,
    )


def connect(
    url: str, *, password: str | None = None, verify_tls: bool = True, request_timeout_s: int = REQUEST_TIMEOUT_S
) -> Client:
    """Connect to the database.

    The database need not exist yet (`migrate` creates it); the client's `database` attribute names it. Clients of
    the embedded engine share one engine per process and path, and each may be used from any thread.

    Parameters
    ----------
    url
        See `parse`.
    password
        Of the URL's user; None where the user has none.
    verify_tls
        Whether the server's certificate must be valid.
    request_timeout_s
        How long a server may be silent before it is treated as down.

    Raises
    ------
    BadSettings
        The URL is wrong.
    DeliveryFailed
        The database cannot be reached or refuses the user; says which, never with the password.
    """
    address = parse(url)
    options: dict[str, Any] = {}
    if address.interface == "chdb":
        path = Path(address.path).expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True)
        options = {"interface": "chdb", "path": str(path)}
    else:
        options = {
            "interface": address.interface,
            "host": address.host,
            "port": address.port,
            "username": address.user,
            "password": password or "",
            "verify": verify_tls,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "send_receive_timeout": min(HELLO_TIMEOUT_S, request_timeout_s),
            # Sessions forbid parallel queries on one client, and nothing here needs them.
            "autogenerate_session_id": False,
        }
    try:
        client = clickhouse_connect.get_client(**options)
    except ClickHouseError as error:
        where = address.path if address.interface == "chdb" else f"{address.host}:{address.port}"
        # The cause is left out: a driver's exception may carry request headers.
        raise DeliveryFailed(
            f"clickhouse: cannot connect to {where}: {describe(error, password)}", retryable=is_temporary(error)
        ) from None
    if isinstance(client, HttpClient):
        client.timeout = Timeout(connect=CONNECT_TIMEOUT_S, read=request_timeout_s)
    client.database = address.database
    return client


def describe(error: BaseException, *secrets: str | None) -> str:
    """What went wrong, in one line without secrets or data of rows."""
    text = " ".join(_QUERY.sub("", _DATA.sub("", str(error))).split())
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = _SECRETS.sub(lambda m: "://***@" if m["url"] else f"{m['key']}***", text)
    if len(text) > MAX_ERROR_CHARS:
        text = text[: MAX_ERROR_CHARS - 1] + "…"
    return f"{type(error).__name__}: {text}"


def is_transport(error: BaseException) -> bool:
    """Whether the database was not reached, as against reached and refusing, or refused by the client itself."""
    if isinstance(error, ProgrammingError):
        return False
    return getattr(error, "code", None) is None and "Code:" not in str(error)


def is_busy(error: BaseException) -> bool:
    """Whether the database was reached and cannot just now, which mends itself or is mended for all tables at once."""
    return getattr(error, "code", None) in BUSY_CODES


def is_temporary(error: BaseException) -> bool:
    """Whether waiting helps: the database was not reached, or cannot just now."""
    if isinstance(error, DeliveryFailed):
        return error.retryable
    return is_transport(error) or is_busy(error)
