"""Saved state of a partition reader: self-describing, checked, free of pickle.

Layout: magic, then a msgpack array of format number, component, CRC 32 of the payload, payload (msgpack).
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import msgspec

from schemas.errors import StateUnreadable

MAGIC = b"tidegauge-partition\n"
FORMAT = 1
"""Raised with every change of what the payload means."""

T = TypeVar("T")


def write_state(component: str, state: object) -> bytes:
    """Encode `state`, a structure of msgspec types."""
    payload = msgspec.msgpack.encode(state)
    return MAGIC + msgspec.msgpack.encode((FORMAT, component, zlib.crc32(payload), payload))


def read_state(component: str, data: bytes, kind: type[T]) -> T:
    """Decode what `write_state` gave.

    Raises
    ------
    StateUnreadable
        Truncated, altered, of another component or of another format.
    """
    if not data.startswith(MAGIC):
        raise StateUnreadable(f"{component}: not the saved state of a partition; starting cold")
    try:
        number, owner, checksum, payload = msgspec.msgpack.decode(data[len(MAGIC) :], type=tuple[int, str, int, bytes])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StateUnreadable(f"{component}: saved state is truncated or damaged; starting cold") from None
    if number != FORMAT:
        raise StateUnreadable(
            f"{component}: saved state is format {number}, this version reads {FORMAT}; starting cold"
        )
    if owner != component:
        raise StateUnreadable(f"{component}: saved state belongs to {owner}; starting cold")
    if zlib.crc32(payload) != checksum:
        raise StateUnreadable(f"{component}: saved state is damaged; starting cold")
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StateUnreadable(f"{component}: saved state does not fit this version; starting cold") from None
