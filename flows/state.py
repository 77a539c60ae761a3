"""The envelope in which all saved state travels: format, component, library versions, checksum, bytes.

State that cannot be read means a cold start, said aloud, never a crash: `unpack` raises `StateUnreadable`, and the
caller starts with nothing known.
"""

from __future__ import annotations

import importlib.metadata
import io
import pickle
import zlib
from functools import cache
from typing import Any, Final

import msgspec
import structlog

from schemas.errors import StateUnreadable

MAGIC: Final = b"TGS1"
_LIBRARIES: Final = ("numpy", "river")
_TRUSTED: Final = (
    "builtins",
    "collections",
    "datetime",
    "numpy",
    "river",
    "schemas",
    "detectors",
    "flows",
    "copyreg",
    "msgspec",
)


class _Header(msgspec.Struct, frozen=True):
    component: str
    format: int
    libraries: dict[str, str]
    size: int
    crc32: int


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


class _Reader(pickle.Unpickler):
    """Loads only types of ours and of the libraries that state consists of: a foreign file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".", 1)[0] not in _TRUSTED or (module == "builtins" and name in {"eval", "exec", "open"}):
            raise StateUnreadable(f"state names the foreign type {module}.{name}")
        return super().find_class(module, name)


def pack(component: str, format_number: int, state: Any) -> bytes:
    """Wrap a component's state for saving.

    Parameters
    ----------
    component
        Who saved it.
    format_number
        Raised whenever the component reads its state differently.
    state
        Anything picklable.
    """
    body = pickle.dumps(state, protocol=5)
    header = msgspec.json.encode(_Header(component, format_number, _versions(), len(body), zlib.crc32(body)))
    return MAGIC + len(header).to_bytes(4, "big") + header + body


def unpack(component: str, format_number: int, data: bytes) -> Any:
    """Read what `pack` wrote.

    Raises
    ------
    StateUnreadable
        Truncated, foreign, damaged, or of another component or format.
    """
    try:
        if data[:4] != MAGIC:
            raise StateUnreadable(f"{component}: saved state is foreign")
        start = 8 + int.from_bytes(data[4:8], "big")
        header = msgspec.json.decode(data[8:start], type=_Header)
        body = data[start:]
        if header.component != component or header.format != format_number:
            raise StateUnreadable(
                f"{component}: saved state is {header.component} format {header.format}, "
                f"this version reads format {format_number}"
            )
        if len(body) != header.size or zlib.crc32(body) != header.crc32:
            raise StateUnreadable(f"{component}: saved state is truncated or damaged")
        return _Reader(io.BytesIO(body)).load()
    except StateUnreadable:
        raise
    except Exception as problem:
        raise StateUnreadable(f"{component}: saved state cannot be read ({type(problem).__name__})") from problem


def unpack_or_cold(component: str, format_number: int, data: bytes | None) -> Any | None:
    """State if there is any that can be read; otherwise None, and a word in the log about the cold start."""
    if data is None:
        return None
    try:
        return unpack(component, format_number, data)
    except StateUnreadable as problem:
        structlog.get_logger().warning("cold start", component=component, why=str(problem))
        return None
