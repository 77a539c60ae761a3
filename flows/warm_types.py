"""Makes msgspec know all our types before there are threads.

msgspec builds what it knows of a struct at the first use, and two threads that do so at the same moment crash the
process. Worker threads would: at the first failed request, at the first line of a trace, at a restart.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from flows.causes import default_rules


def warm_types() -> None:
    """Build every struct that is imported; called in the one thread that there is before the engine starts."""
    for struct in _structs(msgspec.Struct):
        if not getattr(struct, "__parameters__", ()):
            msgspec.json.Decoder(struct)
    default_rules()


def _structs(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for struct in base.__subclasses__():
        yield struct
        yield from _structs(struct)
