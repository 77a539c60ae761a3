"""Own JSON messages: one object per message, decoded by one compiled msgspec decoder, refused with a precise reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, TypeVar

import msgspec

from schemas.errors import BadEvent, Reason

E = TypeVar("E")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_object(decoder: msgspec.json.Decoder[E], payload: bytes) -> E:
    """Decode one message.

    Raises
    ------
    BadEvent
        `EMPTY`, `NOT_PARSABLE`, `MISSING_FIELD`, `WRONG_TYPE` or `OUT_OF_RANGE`. The detail names the field, never its
        value.
    """
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise refused(error) from None
    except (msgspec.DecodeError, UnicodeError):
        if not payload.strip():
            raise BadEvent(Reason.EMPTY, "the message has no content") from None
        raise BadEvent(Reason.NOT_PARSABLE, "not one whole JSON object in UTF-8") from None
    except RecursionError:
        raise BadEvent(Reason.NOT_PARSABLE, "JSON nested too deeply") from None


def refused(error: msgspec.ValidationError) -> BadEvent:
    """Translate msgspec's refusal; its message may quote a value, which must not be repeated."""
    what, _, where = str(error).partition(" - at ")
    place = f" - at {where}" if where else ""
    if what.startswith("Object missing required field"):
        return BadEvent(Reason.MISSING_FIELD, what + place)
    if what.startswith("Expected ") and ", got " in what:
        return BadEvent(Reason.WRONG_TYPE, what + place)
    if what.startswith("Expected "):  # a bound: `int` >= 0, `str` of length <= 512
        return BadEvent(Reason.OUT_OF_RANGE, what + place)
    if what.startswith("Invalid enum value"):
        return BadEvent(Reason.OUT_OF_RANGE, "not one of the allowed values" + place)
    if "out of range" in what:
        return BadEvent(Reason.OUT_OF_RANGE, "number out of range" + place)
    return BadEvent(Reason.WRONG_TYPE, "a value does not fit its field" + place)


def json_lines(file: BinaryIO) -> Iterator[bytes]:
    """Messages of a JSON lines file. Blank lines are no messages; a byte order mark is dropped."""
    first = True
    for line in file:
        text = line.rstrip(b"\r\n")
        if first:
            text = text.removeprefix(BYTE_ORDER_MARK)
            first = False
        if text.strip():
            yield text
