"""Every sink, every check: HTTP statuses, the same batch twice, slow and broken receivers, no secret in any error."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator

import pytest

from schemas.errors import BadSettings, DeliveryFailed
from schemas.incident import Incident
from sinks import SINKS, build_sink
from sinks.alertmanager import Alertmanager
from sinks.base import Sink
from sinks.pagerduty import PagerDuty
from sinks.secrets import Secret
from sinks.slack import Slack
from sinks.webhook import Webhook
from tests.sinks.incidents import incident
from tests.sinks.receiver import Answer, Receiver, receiver

PATH_SECRET = "T000SECRET/B000SECRET/verysecrettoken"
KEY = "0123456789abcdef0123456789ABCDEF"
SIGNING = "whsec_" + "c2VjcmV0" * 5
TOKEN = "bearer-token-0123456789"
OWN_SECRET = {"slack": "", "pagerduty": KEY, "alertmanager": TOKEN, "webhook": SIGNING}
SECRETS = [PATH_SECRET, "verysecrettoken", KEY, SIGNING, SIGNING.removeprefix("whsec_"), TOKEN]

Make = Callable[[str], Sink[Incident]]
HTTP_SINKS: dict[str, Make] = {
    "slack": lambda url: Slack("ops", f"{url}/services/{PATH_SECRET}", read_s=0.25, connect_s=0.5),
    "pagerduty": lambda url: PagerDuty("ops", KEY, url=f"{url}/v2/enqueue/{PATH_SECRET}", read_s=0.25, connect_s=0.5),
    "alertmanager": lambda url: Alertmanager("ops", f"{url}/{PATH_SECRET}", token=TOKEN, read_s=0.25, connect_s=0.5),
    "webhook": lambda url: Webhook("ops", f"{url}/{PATH_SECRET}", SIGNING, read_s=0.25, connect_s=0.5),
}
ACCEPTED = {"slack": 200, "pagerduty": 202, "alertmanager": 200, "webhook": 204}
PERMANENT = [301, 302, 307, 400, 401, 403, 404, 405, 410, 413, 415, 422]
RETRYABLE = [408, 425, 429, 500, 501, 502, 503, 504, 507]


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


@pytest.fixture(params=sorted(HTTP_SINKS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sink(kind: str, server: Receiver) -> Iterator[Sink[Incident]]:
    server.default = Answer(ACCEPTED[kind])
    made = HTTP_SINKS[kind](server.url)
    yield made
    made.close()


def failure(sink: Sink[Incident]) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        sink.write([incident()])
    assert_no_secret(str(caught.value) + repr(caught.value))
    assert "ops" in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def assert_no_secret(text: str) -> None:
    for secret in SECRETS:
        assert secret not in text


def test_accepted_batch_raises_nothing(sink: Sink[Incident], server: Receiver) -> None:
    sink.write([incident(1), incident(2)])
    assert server.requests


@pytest.mark.parametrize("status", PERMANENT)
def test_refusals_that_cannot_change_are_not_retried(sink: Sink[Incident], server: Receiver, status: int) -> None:
    elsewhere = (("Location", f"{server.url}/elsewhere"),)
    server.default = Answer(status, b"no", elsewhere)
    failed = failure(sink)
    assert not failed.retryable
    assert f"HTTP {status}" in str(failed)
    assert "Check" in str(failed)
    assert all("elsewhere" not in r.path for r in server.requests)


@pytest.mark.parametrize("status", RETRYABLE)
def test_troubles_that_may_pass_are_retryable(sink: Sink[Incident], server: Receiver, status: int) -> None:
    server.default = Answer(status, b"later", (("Retry-After", "17"),))
    failed = failure(sink)
    assert failed.retryable
    assert failed.retry_after_s == 17


def test_retry_after_date_is_compared_with_the_receivers_own_clock(sink: Sink[Incident], server: Receiver) -> None:
    answer = b"HTTP/1.1 503 X\r\nDate: Sun, 01 Mar 2026 10:00:00 GMT\r\nRetry-After: Sun, 01 Mar 2026 10:01:30 GMT\r\n"
    server.default = Answer(raw=answer + b"Content-Length: 0\r\n\r\n")
    assert failure(sink).retry_after_s == 90


@pytest.mark.parametrize("value", ["soon", "-5", "1e9", "nan", "", "²", "9" * 40])
def test_unreadable_retry_after_is_ignored(sink: Sink[Incident], server: Receiver, value: str) -> None:
    raw = f"HTTP/1.1 429 X\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    server.default = Answer(raw=raw)
    failed = failure(sink)
    assert failed.retryable
    assert failed.retry_after_s is None


def test_slow_receiver_times_out_and_is_retryable(sink: Sink[Incident], server: Receiver) -> None:
    server.default = Answer(hold=True)
    failed = failure(sink)
    assert failed.retryable
    assert "no answer within 0.25 s" in str(failed)


def test_refused_connection_is_retryable(kind: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        sink = HTTP_SINKS[kind](f"http://127.0.0.1:{free.getsockname()[1]}")
        failed = failure(sink)
    assert failed.retryable
    assert "cannot connect" in str(failed)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
    ],
)
def test_garbage_answers_are_retryable(sink: Sink[Incident], server: Receiver, raw: bytes) -> None:
    server.default = Answer(raw=raw)
    assert failure(sink).retryable


def test_endless_answers_are_cut(sink: Sink[Incident], server: Receiver) -> None:
    server.default = Answer(500, b"x" * 5_000_000)
    assert len(str(failure(sink))) < 500
    server.default = Answer(500, b"later")
    assert "later" in str(failure(sink)), "the rest of the long answer must not be taken for the next one"


def test_echoed_secrets_and_control_characters_are_not_shown(sink: Sink[Incident], server: Receiver, kind: str) -> None:
    echo = f"bad key {OWN_SECRET[kind]} at /services/{PATH_SECRET}\x1b[31m\nnext".encode()
    server.default = Answer(400, echo)
    text = str(failure(sink))
    assert "bad key" in text
    assert "\x1b" not in text
    assert "\n" not in text


def test_no_secret_in_any_log(
    sink: Sink[Incident], server: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        sink.write([incident()])
        server.default = Answer(500, b"later")
        failure(sink)
        server.default = Answer(raw=b"HTTP/1.1 500 X\r\nno header at all\r\nContent-Length: 0\r\n\r\n")
        failure(sink)
    assert_no_secret(caplog.text)
    assert_no_secret("".join(capfd.readouterr()))
    assert_no_secret(repr(sink) + str(vars(sink)))


def test_same_batch_twice_carries_the_same_identity(sink: Sink[Incident], server: Receiver, kind: str) -> None:
    sink.write([incident(7, 3)])
    sink.write([incident(7, 3)])
    first, second = server.requests
    assert first.body == second.body
    assert first.headers.get("webhook-id") == second.headers.get("webhook-id")
    assert (first.headers.get("webhook-id") is not None) == (kind == "webhook")


def test_content_is_sent_as_json(sink: Sink[Incident], server: Receiver) -> None:
    sink.write([incident()])
    assert server.requests[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind_", ["slack", "pagerduty", "webhook"])
@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "ftp://hooks.example",
        "hooks.example",
        "https://",
        "https://a b/",
        "file:///etc/passwd",
        # what only looks like this machine
        "http://localhost.hooks.example/",
        "http://127.0.0.1.hooks.example/",
        "http://127.0.0.1@hooks.example/",
        "http://localhost:80@hooks.example/",
        "http://hooks.example#@127.0.0.1/",
        "http://hooks.example\\@127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost./",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://loc\u00adalhost/",
        "http://127\u30020.0.1/",
        "http://\u2460.0.0.1/",
    ],
)
def test_addresses_off_this_machine_must_be_https(kind_: str, url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        build_sink(kind_, "ops", url=url, secret=KEY if kind_ == "pagerduty" else None)
    assert "https://" in str(caught.value)
    assert "hooks" not in str(caught.value)


def test_certificates_are_checked(kind: str) -> None:
    # A listener that speaks no TLS at all stands for every certificate that is not right.
    with receiver() as plain:
        sink = HTTP_SINKS[kind](plain.url.replace("http://", "https://"))
        failed = failure(sink)
    assert failed.retryable
    assert "TLS failed" in str(failed)


def test_table_builds_every_type(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sinks") / "out.jsonl"
    given: dict[str, dict[str, object]] = {
        "slack": {"url": Secret("https://hooks.example/x"), "rate_per_s": 0.5},
        "pagerduty": {"secret": KEY},
        "alertmanager": {"url": "http://alertmanager:9093"},
        "webhook": {"url": "https://hooks.example", "secret": SIGNING},
        "kafka": {"kafka_options": {"bootstrap.servers": "127.0.0.1:1"}},
        "jsonl": {"path": str(path)},
    }
    assert given.keys() == SINKS.keys()
    for type_, options in given.items():
        sink = build_sink(type_, "ops", **options)  # type: ignore[arg-type]
        assert sink.name == "ops"
        sink.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "smoke"}, "unknown type `smoke`; known: slack, pagerduty, alertmanager, webhook, kafka, jsonl"),
        ({"type": "slack"}, "needs `url` or `url_file`"),
        ({"type": "pagerduty"}, "needs `secret` or `secret_file`"),
        ({"type": "pagerduty", "secret": KEY[:31]}, "32 characters"),
        ({"type": "webhook", "url": "https://x.example", "secret": "hunter2"}, "must be `whsec_`"),
        ({"type": "jsonl"}, "needs `path`"),
        ({"type": "kafka"}, "bootstrap"),
        ({"type": "kafka", "kafka_options": {"bootstrap.servers": "x", "no.such.option": 1}}, "no.such.option"),
        ({"type": "jsonl", "path": "x", "url": "https://x.example"}, "`url` means nothing here; it takes `path`"),
        ({"type": "slack", "url": ""}, "`url` is empty"),
    ],
)
def test_wrong_settings_say_what_is_missing(options: dict[str, object], said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        build_sink(name="ops", **options)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert_no_secret(str(caught.value))
    assert "hunter2" not in str(caught.value)
