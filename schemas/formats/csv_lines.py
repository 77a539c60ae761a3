"""CSV files as messages: the header is checked once and dropped, each later line is one message.

A published trace is read by its columns' positions, so that a line stands for itself and a replay can start anywhere.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO, TypeVar

import msgspec

from schemas.errors import BadEvent, BadSettings, Reason
from schemas.formats.json_events import BYTE_ORDER_MARK, refused

Row = TypeVar("Row", bound=msgspec.Struct)

MAX_LINE_BYTES = 131_072
"""Longest CSV line that is read; the limit of one field in Python's csv module."""

_HEADER_SHOWN = 200


def header_and_lines(file: BinaryIO) -> tuple[str, Iterator[bytes]]:
    """Split an opened file into its header line and its other lines; blank lines are no messages."""
    rest = (line.rstrip(b"\r\n") for line in file)
    header = next(rest, b"").removeprefix(BYTE_ORDER_MARK).decode("utf-8", errors="replace").strip()
    return header, (line for line in rest if line.strip())


def csv_lines(name: str, header: Sequence[str], file: BinaryIO) -> Iterator[bytes]:
    """Lines of a CSV file of the format `name` behind its header.

    Raises
    ------
    BadSettings
        The file starts with another header; the message shows the expected one. Raised by the call, not by the first
        step of the iteration.
    """
    found, lines = header_and_lines(file)
    if found.split(",") != list(header):
        raise wrong_header(name, header, found)
    return lines


def wrong_header(name: str, header: Sequence[str], found: str) -> BadSettings:
    """Say which header a format expects."""
    shown = found if len(found) <= _HEADER_SHOWN else found[:_HEADER_SHOWN] + "…"
    return BadSettings(
        f"{name}: expected the header {','.join(header)!r}, got {shown!r}. Choose the format that fits the file"
        " (docs/formats.md), and keep the header line when you cut a file into pieces."
    )


def fields(payload: bytes) -> list[str]:
    """Fields of one CSV line.

    Raises
    ------
    BadEvent
        `EMPTY`, `TOO_LARGE`, or `NOT_PARSABLE`: not UTF-8, unbalanced quotes, or more than one line.
    """
    if not payload.strip():
        raise BadEvent(Reason.EMPTY, "the message has no content")
    if len(payload) > MAX_LINE_BYTES:
        raise BadEvent(Reason.TOO_LARGE, f"a CSV line of more than {MAX_LINE_BYTES} bytes")
    try:
        text = payload.decode("utf-8")
        if '"' not in text and "\n" not in text and "\r" not in text:
            return text.split(",")
        rows = list(csv.reader([text.rstrip("\r\n")], strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise BadEvent(Reason.NOT_PARSABLE, "not one CSV line in UTF-8") from None
    return list(chain.from_iterable(rows))


def typed(values: Sequence[str], row: type[Row]) -> Row:
    """Turn the fields of a line into a typed row by position; an empty field is `None`.

    Raises
    ------
    BadEvent
        `NOT_PARSABLE` (another number of columns), `WRONG_TYPE`, `OUT_OF_RANGE` or `MISSING_FIELD` (an empty field that
        must not be empty). The detail names the column, never its value.
    """
    names = row.__struct_fields__
    if len(values) != len(names):
        raise BadEvent(Reason.NOT_PARSABLE, f"expected {len(names)} columns ({','.join(names)}), got {len(values)}")
    given = {name: value for name, value in zip(names, values, strict=True) if value != ""}
    try:
        return msgspec.convert(given, row, strict=False)
    except msgspec.ValidationError as error:
        raise refused(error) from None
