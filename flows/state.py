"""The envelope in which all saved state travels: format, component, who wrote it, checksum, bytes.

The bytes are msgpack of plain values, of arrays as (type, shape, bytes), and of the classes that the reader names.
Reading builds nothing but those: there is no code in a state, whoever wrote it, and nothing of a library's own that an
upgrade of it could rename.

State that cannot be read means a cold start, said aloud, never a crash: `unpack` raises `StateUnreadable`, and the
caller starts with nothing known.
"""

from __future__ import annotations

import importlib.metadata
import struct
import zlib
from functools import cache
from typing import Any, Final, get_args

import msgspec
import numpy as np
import structlog

from schemas.errors import StateUnreadable

MAGIC: Final = b"TGS2"
_LIBRARIES: Final = ("tidegauge", "numpy", "river")
_NUMBERS: Final = "biuf"
"""Kinds of arrays that travel: booleans, integers and floats."""


class _Header(msgspec.Struct, frozen=True, array_like=True):
    component: str
    format: str
    libraries: dict[str, str]


def fingerprint(number: int, *columns: object) -> str:
    """A format number together with the names of columns that arrays in the state are laid out by.

    A column that is added or moved is another format, without anybody having to think of it.

    Parameters
    ----------
    number
        The component's own format number.
    columns
        Anything whose `repr` is the same in every run.
    """
    return f"{number}.{zlib.crc32(repr(columns).encode()):08x}"


def pack(component: str, format: int | str, state: Any) -> bytes:
    """Wrap a component's state for saving.

    Parameters
    ----------
    component
        Who saved it.
    format
        Changes whenever the component reads its state differently.
    state
        Plain values, containers, arrays of numbers, dataclasses and structs.
    """
    body = _ENCODER.encode(state)
    header = _ENCODER.encode(_Header(component, str(format), _versions()))
    checksum = zlib.crc32(body, zlib.crc32(header))
    return b"".join((_START.pack(MAGIC, checksum, len(header), len(body)), header, body))


def unpack(component: str, format: int | str, data: bytes, kind: Any) -> Any:
    """Read what `pack` wrote.

    Parameters
    ----------
    component, format, data
        As in `pack`.
    kind
        Type of the state; nothing else is built.

    Raises
    ------
    StateUnreadable
        Truncated, foreign, damaged, or of another component or format.
    """
    if not isinstance(data, bytes) or data[:4] != MAGIC:
        raise StateUnreadable(f"{component}: saved state is foreign, or older than this version can read")
    damaged = StateUnreadable(f"{component}: saved state is truncated or damaged")
    if len(data) < _START.size:
        raise damaged
    _, checksum, header_size, body_size = _START.unpack_from(data)
    rest = memoryview(data)[_START.size :]
    if len(rest) != header_size + body_size or zlib.crc32(rest) != checksum:
        raise damaged
    try:
        header = _HEADER.decode(rest[:header_size])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise damaged from None
    if header.component != component or header.format != str(format):
        raise StateUnreadable(
            f"{component}: saved state is {header.component} format {header.format} (written by {_words(header)}), "
            f"this version reads format {format}"
        )
    try:
        return _decoder(kind).decode(rest[header_size:])
    except Exception as problem:  # whatever a forged state provokes
        raise StateUnreadable(
            f"{component}: saved state does not fit this version ({problem}; written by {_words(header)})"
        ) from problem


def unpack_or_cold(component: str, format: int | str, data: bytes | None, kind: Any) -> Any | None:
    """State if there is any that can be read; otherwise None, and a word in the log about the cold start."""
    if data is None:
        return None
    try:
        return unpack(component, format, data, kind)
    except StateUnreadable as problem:
        say_cold(component, problem)
        return None


def say_cold(component: str, problem: StateUnreadable) -> None:
    """Log that a component starts with nothing known."""
    structlog.get_logger().warning("cold start", component=component, why=str(problem))


@cache
def _versions() -> dict[str, str]:
    out = {}
    for name in _LIBRARIES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from its folder
            continue
    return out


def _words(header: _Header) -> str:
    return ", ".join(f"{name} {version}"[:40] for name, version in list(header.libraries.items())[:5]) or "unknown"


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_decoded)


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
        return value.dtype.str, value.shape, np.ascontiguousarray(value).data.cast("B") if value.size else b""
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"state holds a {type(value).__name__}")


def _decoded(kind: Any, value: Any) -> Any:
    if getattr(kind, "__origin__", kind) is not np.ndarray:
        raise NotImplementedError(f"state names a {kind}")
    name, shape, content = value
    dtype = np.dtype(str(name))
    if dtype.kind not in _NUMBERS or dtype.hasobject:
        raise ValueError("an array of something else than numbers")
    wanted = get_args(get_args(kind)[1])[0] if get_args(kind) else None
    if isinstance(wanted, type) and issubclass(wanted, np.generic) and not issubclass(dtype.type, wanted):
        raise ValueError(f"an array of {dtype} in the place of {wanted.__name__}")
    if any(n < 0 for n in shape):
        raise ValueError("an array of no shape")
    return np.frombuffer(content, dtype).reshape(shape).copy()


_START: Final = struct.Struct(">4sIIQ")
"""Magic, checksum of all that follows, sizes of header and body."""
_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_encoded)
_HEADER: Final = msgspec.msgpack.Decoder(_Header)
