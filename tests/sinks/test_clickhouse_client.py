from __future__ import annotations

import pytest

from schemas.errors import BadSettings, DeliveryFailed
from sinks.clickhouse.client import connect, describe, parse
from tests.servers.cache import free_port

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgres://h/d", "expected chdb://"),
        ("clickhouse", "expected chdb://"),
        ("chdb://", "directory"),
        ("http://", "expected http"),
        ("http://host:port/db", "port"),
        ("http://host/db;drop", "letters"),
        ("http://host/db?password=x", "without options"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        parse(url)


def test_an_address_names_user_port_and_database() -> None:
    assert parse("https://a%40b@db.example/ops")[2:] == ("db.example", 8443, "a@b", "ops")
    assert parse("http://db.example:9000")[2:] == ("db.example", 9000, "default", "tidegauge")


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadSettings, match="password_file") as caught:
        connect(f"http://user:{SECRET}@localhost:8123/db")
    assert SECRET not in repr(caught.value)


def test_an_unreachable_server_is_retryable_and_its_error_holds_no_secret() -> None:
    with pytest.raises(DeliveryFailed, match="cannot connect to") as caught:
        connect(f"http://writer@127.0.0.1:{free_port()}/db", password=SECRET)
    assert caught.value.retryable
    assert caught.value.__cause__ is None
    assert SECRET not in repr(caught.value)


@pytest.mark.server
def test_a_wrong_password_is_not_retryable_and_not_repeated(clickhouse_server: str) -> None:
    url = clickhouse_server.replace("://", "://nobody@")
    with pytest.raises(DeliveryFailed, match="cannot connect") as caught:
        connect(url, password=SECRET)
    assert not caught.value.retryable
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@host/ failed",
        f"bad url password={SECRET}&x=1",
        f"headers {{'Authorization': 'Basic {SECRET}'}}",
        f"X-ClickHouse-Key: {SECRET}",
        f"quoted {SECRET} itself",
    ],
)
def test_descriptions_of_errors_hold_no_secret(text: str) -> None:
    assert SECRET not in describe(ValueError(text), SECRET if "itself" in text else None)


def test_descriptions_of_errors_hold_no_rows() -> None:
    said = describe(ValueError("Code: 27. Cannot parse input: (while reading the value of key prompt): Row 1: tell me"))
    assert said == "ValueError: Code: 27. Cannot parse input:"
