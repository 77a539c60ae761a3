"""Where the search begins: valid samples of every format, what was found before, and spellings of trouble."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from schemas.formats import FORMATS

CORPUS = Path(__file__).with_name("corpus.json")
"""By format, or `*` for all: messages that were once trouble, or nearly. Text stands for its bytes in Latin-1."""

ODD: tuple[bytes, ...] = (
    b"", b"-1", b"-0.0", b"0", b"1e999", b"-1e999", b"1e-999", b"1e308", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551616", b"9007199254740993", b"9" * 400, b"0." + b"0" * 400 + b"1",
    b"NaN", b"nan", b"Infinity", b"-inf", b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b'"\\udfff\\ud800"',
    b'"\\u0000"', b'"\x00"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"' + b"x" * 600 + b'"',
    b'"0000-01-01T00:00:00Z"', b'"9999-12-31T23:59:59Z"', b'"1969-12-31T23:59:59Z"', b'"2016-12-31T23:59:60Z"',
    b'"2026-02-30T00:00:00Z"', b'"2026-01-01T00:00:00+99:99"', b'"2026-01-01T00:00:00"', b"-62135596800",
    b"253402300799", b"946684799", b"4102444799", b"4102444800", b"1767225600000000000", b"[" * 200, b"{" * 200,
    b'{"a":' * 200, b"\\", b'"', b"\r\n", b"\x1f\x8b\x08\x00", b"\xef\xbb\xbf", b'"1E+1000000"', b'"-0"', b'"sNaN"',
    b"1_0", "١".encode(), b"0x10", b'"a":1,"a":2', b",,,", b'"x@everyone <!channel> `"',
)  # fmt: skip
"""Values that a field, a column or a place in a message is replaced by."""


@cache
def samples(name: str) -> tuple[bytes, ...]:
    """Valid messages of a format."""
    from tests.schemas.test_format_contract import SAMPLES

    return tuple(SAMPLES[name])


def corpus(name: str) -> list[bytes]:
    """Past findings for a format."""
    found: dict[str, list[str]] = json.loads(CORPUS.read_text(encoding="utf-8"))
    return [text.encode("latin-1") for key in (name, "*") for text in found.get(key, [])]


NAMES: tuple[str, ...] = tuple(sorted(FORMATS))
"""Every format of the registry: a new one is covered by being there."""
