from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.incident import Incident
from sinks.webhook import BadSignature, Webhook, message_id, sign, verify
from tests.sinks.incidents import incident
from tests.sinks.receiver import receiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
NOW = 1_772_360_000.0


def test_signature_follows_the_scheme() -> None:
    # Written out, after the scheme's text: base64(HMAC-SHA256(secret bytes, "id.timestamp.body")).
    digest = hmac.new(bytes(range(32)), b'msg_1.1772360000.{"a":1}', hashlib.sha256).digest()
    headers = sign(SECRET, "msg_1", 1_772_360_000, b'{"a":1}')
    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1772360000",
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def test_signature_equals_the_published_example() -> None:
    # From the scheme's reference libraries (test vectors of standard-webhooks).
    headers = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receiver_gets_the_incident_and_can_verify_it() -> None:
    with receiver() as it:
        sink = Webhook("hook", it.url, SECRET, clock=lambda: NOW)
        sink.write([incident()])
        sink.close()
        got = it.requests[0]
    assert verify(SECRET, got.headers, got.body, now=NOW + 3) == message_id(incident())
    assert msgspec.json.decode(got.body, type=Incident) == incident()


def test_id_is_the_same_for_a_retry_and_differs_for_the_next_revision() -> None:
    assert message_id(incident(1, 1)) == message_id(incident(1, 1))
    assert len({message_id(incident(n, r)) for n in (1, 2) for r in (1, 2, 3)}) == 6


@given(st.integers(0, 400), st.integers(0, 7))
def test_one_changed_bit_is_refused(position: int, bit: int) -> None:
    body = msgspec.json.encode(incident())
    changed = bytearray(body)
    changed[position] ^= 1 << bit
    headers = sign(SECRET, "msg_1", int(NOW), body)
    with pytest.raises(BadSignature):
        verify(SECRET, headers, bytes(changed), now=NOW)


@pytest.mark.parametrize("late_s", [301, -301, 1e9])
def test_replays_are_refused(late_s: float) -> None:
    with pytest.raises(BadSignature, match="away from now"):
        verify(SECRET, sign(SECRET, "msg_1", int(NOW), b"{}"), b"{}", now=NOW + late_s)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "x", "v1,", "v1,é", "²"])
def test_missing_or_garbage_headers_are_refused(name: str, value: str | None) -> None:
    headers = sign(SECRET, "msg_1", int(NOW), b"{}")
    headers = {k: v for k, v in headers.items() if k != name} | ({} if value is None else {name: value})
    with pytest.raises(BadSignature):
        verify(SECRET, headers, b"{}", now=NOW)


def test_other_secret_is_refused() -> None:
    with pytest.raises(BadSignature):
        verify(OTHER, sign(SECRET, "msg_1", int(NOW), b"{}"), b"{}", now=NOW)


def test_secrets_can_be_changed_without_a_gap() -> None:
    both = sign(f"{OTHER} {SECRET}", "msg_1", int(NOW), b"{}")
    assert verify(SECRET, both, b"{}", now=NOW) == verify(OTHER, both, b"{}", now=NOW) == "msg_1"
    assert verify(f"{SECRET} {OTHER}", sign(OTHER, "msg_1", int(NOW), b"{}"), b"{}", now=NOW) == "msg_1"


def test_header_names_are_read_in_any_case() -> None:
    headers = {k.title(): v for k, v in sign(SECRET, "msg_1", int(NOW), b"{}").items()}
    assert verify(SECRET, headers, b"{}", now=NOW) == "msg_1"


def test_without_a_secret_nothing_is_signed() -> None:
    assert "webhook-signature" not in sign(None, "msg_1", int(NOW), b"{}")
