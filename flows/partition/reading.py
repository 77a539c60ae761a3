"""From messages to decoded events, at most about a thousand of them alive at a time.

Decoded objects that pile up fall out of the processor's caches, which doubles the cost of decoding; so a block is read
in pieces. A format that offers its compiled `decoder` (one event per message) is decoded without a Python call per
message; the message at which that fails is looked at by `Format.decode`, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import orjson

from flows.partition.refusals import Refusal
from schemas.block import Block
from schemas.columns import IntArray
from schemas.errors import BadEvent, Reason
from schemas.formats.base import Format
from schemas.formats.json_events import refused

PIECE = 1_000
"""Messages, or events where messages hold many, that are decoded before they become columns."""
SAMPLED_EVERY = 256
"""Messages whose offset is a multiple of this are searched for unknown fields."""
MAX_UNKNOWN_FIELDS = 64
MAX_FIELD_NAME = 64

E = TypeVar("E", bound=msgspec.Struct)


@dataclass(slots=True)
class Piece(Generic[E]):
    """Some decoded events, with the message (index in the block) and the position inside it of each."""

    events: list[E]
    messages: IntArray
    positions: IntArray


class Reader(Generic[E]):
    """Decodes blocks of one format.

    Parameters
    ----------
    format
        What the messages are written in.
    event_type
        What its events are.
    max_message_bytes
        Larger messages are refused unread.
    """

    def __init__(self, format: Format, event_type: type[E], max_message_bytes: int) -> None:
        self.format = format
        self.event_type = event_type
        self.max_message_bytes = max_message_bytes
        decoder = getattr(format, "decoder", None)  # a format may have one for rows of its own, too
        self._fast: Callable[[Any], Any] | None = None
        if isinstance(decoder, msgspec.json.Decoder) and decoder.type is event_type:
            self._fast = decoder.decode
        self._known: frozenset[str] | None = getattr(format, "known_fields", None)

    def pieces(self, block: Block, refusals: list[Refusal]) -> Iterator[Piece[E]]:
        """Events of a block in order of position; appends to `refusals` what cannot be decoded."""
        decode = self._by_decoder if self._fast is not None else self._by_format
        before = settled = 0
        for piece in decode(block, refusals):
            for refusal in refusals[settled:]:
                refusal.before = before + _rows_before(piece, refusal)
            before += len(piece.events)
            yield piece  # the receiver appends refusals of its own, which know their place
            settled = len(refusals)

    def _by_decoder(self, block: Block, refusals: list[Refusal]) -> Iterator[Piece[E]]:
        fast = self._fast
        assert fast is not None
        for start in range(0, len(block.payloads), PIECE):
            payloads = block.payloads[start : start + PIECE]
            events: list[E] = []
            skipped: list[int] = []
            read = 0
            checked = self._all_small(payloads)
            while read < len(payloads):
                if checked:
                    held = len(events)
                    try:
                        # What was decoded before the failure stays in the list, and says where it happened.
                        events.extend(map(fast, payloads[read:] if read else payloads))
                        break
                    except Exception:
                        read += len(events) - held
                payload = payloads[read]
                try:
                    events.append(self._only(payload))
                except BadEvent as error:
                    refusals.append(Refusal(start + read, 0, -1, error.reason, error.detail))
                    skipped.append(read)
                read += 1
            messages = np.arange(start, start + len(payloads), dtype=np.int64)
            if skipped:
                messages = np.delete(messages, skipped)
            yield Piece(events, messages, np.zeros(len(events), dtype=np.int64))

    def _all_small(self, payloads: Sequence[bytes | None]) -> bool:
        try:
            return max(map(len, payloads), default=0) <= self.max_message_bytes  # type: ignore[arg-type]
        except TypeError:  # a tombstone
            return False

    def _only(self, payload: bytes | None) -> E:
        """The event of a message that holds one."""
        self._check_size(payload)
        assert self._fast is not None
        try:
            event: E = self._fast(payload)
            return event
        except Exception:
            self._events(payload)  # says what is wrong
            raise BadEvent(Reason.NOT_PARSABLE, "the message cannot be decoded") from None

    def _by_format(self, block: Block, refusals: list[Refusal]) -> Iterator[Piece[E]]:
        events: list[E] = []
        messages: list[int] = []
        positions: list[int] = []
        for index, payload in enumerate(block.payloads):
            try:
                self._check_size(payload)
                decoded = self._events(payload)
            except BadEvent as error:
                refusals.append(Refusal(index, 0, -1, error.reason, error.detail))
                continue
            for position, event in enumerate(decoded):
                try:
                    self._check(event)
                except BadEvent as error:
                    refusals.append(Refusal(index, position, -1, error.reason, error.detail))
                    continue
                events.append(event)
                messages.append(index)
                positions.append(position)
            if len(events) >= PIECE:
                yield Piece(events, np.array(messages, dtype=np.int64), np.array(positions, dtype=np.int64))
                events, messages, positions = [], [], []
        yield Piece(events, np.array(messages, dtype=np.int64), np.array(positions, dtype=np.int64))

    def _check_size(self, payload: bytes | None) -> None:
        if payload is None:
            raise BadEvent(Reason.EMPTY, "the message has no payload (a tombstone)")
        if len(payload) > self.max_message_bytes:
            raise BadEvent(
                Reason.TOO_LARGE, f"the message has {len(payload)} bytes, {self.max_message_bytes} are accepted"
            )

    def _events(self, payload: Any) -> list[Any]:
        try:
            return list(self.format.decode(payload))
        except BadEvent:
            raise
        except Exception as error:  # a format must never stop the stream
            raise BadEvent(Reason.NOT_PARSABLE, f"format {self.format.name} failed: {type(error).__name__}") from None

    def _check(self, event: Any) -> None:
        """Hold an event that a format built itself to the schema's types and bounds."""
        if not isinstance(event, self.event_type):
            raise BadEvent(Reason.WRONG_TYPE, f"format {self.format.name} gave another kind of event")
        try:
            msgspec.convert(msgspec.structs.asdict(event), self.event_type)
        except msgspec.ValidationError as error:
            raise refused(error) from None

    def unknown_fields(self, block: Block) -> dict[str, int]:
        """Sampled messages of the block that hold each unknown field; which are sampled only the offset decides."""
        if self._known is None or not len(block.offsets):
            return {}
        offsets = np.asarray(block.offsets, dtype=np.int64)
        found: dict[str, int] = {}
        for index in np.flatnonzero(offsets % SAMPLED_EVERY == 0).tolist():
            payload = block.payloads[index]
            if payload is None or len(payload) > self.max_message_bytes:
                continue
            try:
                message = orjson.loads(payload)
            except ValueError:
                continue
            if isinstance(message, dict):
                names = sorted({name[:MAX_FIELD_NAME] for name in message if name not in self._known})
                for name in names[:MAX_UNKNOWN_FIELDS]:
                    found[name] = found.get(name, 0) + 1
        return dict(sorted(found.items()))


def _rows_before(piece: Piece[Any], refusal: Refusal) -> int:
    row = int(np.searchsorted(piece.messages, refusal.message))
    stop = int(np.searchsorted(piece.messages, refusal.message, side="right"))
    return row + int(np.searchsorted(piece.positions[row:stop], refusal.position))
