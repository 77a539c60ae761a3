"""One partition of a Kafka topic as the engine reads it: position and decoder, which are saved together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from bytewax.inputs import StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TIMESTAMP_NOT_AVAILABLE

from flows.partition import GpuPartition, RequestPartition
from flows.sources.alignment import SPAN_MS
from flows.sources.item import Item
from flows.sources.kafka_reader import POLL_S, PartitionReader
from schemas.block import NO_TIMESTAMP, Block
from schemas.errors import StateUnreadable, TidegaugeError

if TYPE_CHECKING:
    from flows.sources.kafka import KafkaSource

_HEARTBEAT_S = 1.0

UNANSWERED_S = 5.0
"""How long others wait for a partition that has messages and whose broker does not deliver them."""


class KafkaPartition(StatefulSourcePartition[Item[Any], Any]):
    """Reads one partition.

    Parameters
    ----------
    source
        What it is a part of.
    reader
        The consumer of its worker.
    name
        `topic/partition`.
    resume
        What `snapshot` returned; None for a start without.
    """

    def __init__(self, source: KafkaSource, reader: PartitionReader, name: str, resume: Any | None) -> None:
        self.source, self.reader, self.name = source, reader, name
        self.number = source.partitions[name]
        self.key = (source.topic, self.number)
        self.lost = 0
        """Messages that were gone before they could be read, since the first start."""
        self._untold = 0
        """Those of them that no item has told of; saved, since an epoch may end before."""
        self.identity = source.identity
        state = None
        saved = _saved(name, resume)
        if saved is None:
            offset = OFFSET_BEGINNING if source.known else source.start
            if source.known and resume is None:
                structlog.get_logger().warning("kafka: new partition, read from its beginning", partition=name)
        else:
            offset, state, saved_identity, self.lost, self._untold = saved
            self.identity = source.identity or saved_identity
            if saved_identity and self.identity != saved_identity:
                offset = self._made_anew(offset)
        self.decoder = self._decoder(state)
        self.offset = offset if offset >= 0 else self._first(offset)
        self.queue = reader.add(*self.key, self.offset)
        self.last_message = source.monotonic()
        self.last_beat = -_HEARTBEAT_S
        self.unread_since = self.last_message
        """Since when the broker has had something behind our position that does not come."""
        self.watermark_ns = self.decoder.watermark_ns
        self.awake: datetime | None = None
        self.ended = False

    def _decoder(self, state: bytes | None) -> RequestPartition | GpuPartition:
        source = self.source
        try:
            return source.make(source.topic, self.number, source.format, state)
        except StateUnreadable as problem:
            structlog.get_logger().warning("cold start", component=self.name, why=str(problem))
            return source.make(source.topic, self.number, source.format, None)

    def _first(self, start: int) -> int:
        """The offset that `earliest` or `latest` means now: a restart before the first message must not move it."""
        bounds = self.reader.bounds(*self.key)
        return start if bounds is None else bounds[0 if start == OFFSET_BEGINNING else 1]

    def _made_anew(self, offset: int) -> int:
        """Where to begin in a topic that was deleted and made again: the saved position means nothing there."""
        self._stop_if_told("the topic was made anew", offset)
        structlog.get_logger().error(
            "kafka topic was made anew: what was unread in the old one is gone",
            partition=self.name,
            position=offset,
            goes_on_at=self.source.out_of_range,
        )
        return int(OFFSET_END if self.source.out_of_range == "latest" else OFFSET_BEGINNING)

    def _stop_if_told(self, why: str, position: int) -> None:
        if self.source.out_of_range == "stop":
            raise TidegaugeError(
                f"kafka: position {position} of {self.name} cannot be read any more ({why}). Set kafka.out_of_range to "
                "earliest or latest for one start, or delete the state directory's recovery/ to begin anew."
            )

    def go_on(self, position: int, low: int, high: int) -> int:
        """Where to go on when the broker does not have a position any more; says so, and counts what was missed."""
        if low <= position <= high:  # it does, after all
            return position
        latest = self.source.out_of_range == "latest"
        lost = 0
        identity = self.identity
        if position < low:
            why, at = "retention has deleted what was not read yet", high if latest else low
            lost = at - position
        elif (identity := self.source.identify()) and identity == self.identity:
            why, at = "the log was cut off before what was read already", high
        else:
            why, at = "the topic was made anew", high if latest else low
            lost = at - low
        self._stop_if_told(f"{why}; the broker has {low} to {high}", position)
        self.identity = identity or self.identity
        self.lost += lost
        self._untold += lost
        self.offset = at
        structlog.get_logger().error(
            "kafka position out of range", partition=self.name, why=why, position=position, goes_on_at=at, lost=lost
        )
        return at

    def next_batch(self) -> list[Item[Any]]:
        """The next block, if one is there and may be read; otherwise word of silence or loss, or nothing."""
        source = self.source
        if self.ended or source.stopping():
            raise StopIteration
        if source.held():
            self._rest()
            return []
        if self.reader.has(self.key):
            if not source.align.may_read(self.watermark_ns):
                self.reader.rest(self.key)
                self._rest()
                return []
            self.reader.wake(self.key)
        if not self.queue:
            self.reader.poll(source.block_messages)
        if self._untold:
            lost, self._untold = self._untold, 0
            return [Item(self.name, None, self.watermark_ns, lost=lost, read_at_ns=source.wall_ns())]
        if not self.queue:
            self._rest()
            if source.monotonic() - self.last_message > UNANSWERED_S:
                source.align.has_nothing(self.name)  # whoever does not answer is not waited for
            return self._quiet()
        self.awake = None
        messages = self.reader.take(self.key, source.block_messages, SPAN_MS)
        self.last_message = source.monotonic()
        block = Block(
            source.topic,
            self.number,
            [m.offset() for m in messages],
            [m.value() for m in messages],
            [_timestamp_ms(m) for m in messages],
        )
        batch = self.decoder.feed(block)
        self.offset = messages[-1].offset() + 1
        self.watermark_ns = batch.watermark_ns
        source.align.has_read(self.name, self.watermark_ns)
        lag = self.reader.lag(*self.key, self.offset)
        return [Item(self.name, batch, batch.watermark_ns, lag=lag, read_at_ns=source.wall_ns())]

    def _rest(self) -> None:
        self.awake = datetime.now(UTC) + timedelta(seconds=POLL_S)

    def _quiet(self) -> list[Item[Any]]:
        """Nothing to read: tell the flow when the partition is idle, so that it does not hold windows open."""
        source = self.source
        end = self.reader.caught_up.get(self.key)
        if end is None:
            return []
        source.align.has_nothing(self.name)
        self.offset = max(self.offset, end)  # the end lies behind markers of transactions, too
        if source.stop_at_end is not None and source.stop_at_end():
            self.ended = True
            return [Item(self.name, None, 2**62)]
        now = source.monotonic()
        silent_s = now - self.last_message
        if silent_s < source.idle_timeout_s or now - self.last_beat < _HEARTBEAT_S:
            return []
        self.last_beat = now
        if not self._producers_are_silent():
            return []
        watermark_ns = self.watermark_ns
        if watermark_ns > -(2**62):  # event time goes on at the clock's pace since the last message
            watermark_ns += int(silent_s * 1e9)
        return [Item(self.name, None, watermark_ns, idle=True, lag=0, read_at_ns=source.wall_ns())]

    def _producers_are_silent(self) -> bool:
        """Whether the brokers were there for all the idle time-out, and say that there is nothing new.

        While a broker is away, producers hold events back that happened long ago. An end that lies behind an open
        transaction counts for as long as the time-out.
        """
        answered_for_s, end = self.reader.answered_for_s(self.key)
        if answered_for_s < self.source.idle_timeout_s:
            return False
        now = self.source.monotonic()
        if end <= self.offset:
            self.unread_since = now
            return True
        return now - self.unread_since > self.source.idle_timeout_s

    def next_awake(self) -> datetime | None:
        """When to ask again."""
        return self.awake

    def snapshot(self) -> Saved:
        """Position and decoder."""
        return self.offset, self.decoder.snapshot(), self.identity, self.lost, self._untold

    def close(self) -> None:
        """Stop reading it."""
        self.source.parts.pop(self.name, None)
        self.source.align.has_nothing(self.name)
        if self.reader.remove(*self.key):
            self.source.forget(self.reader)


Saved = tuple[int, bytes, str, int, int]
"""Position, the decoder's envelope, the topic's identity, messages lost, and those of them not told yet."""


def _saved(partition: str, resume: Any | None) -> Saved | None:
    """What `snapshot` returned; None, and a word in the log, if this is something else."""
    if resume is None:
        return None
    try:
        # An earlier version saved position and decoder alone.
        saved: Saved = msgspec.convert((*resume, *("", 0, 0)[len(resume) - 2 :]), Saved)
    except (msgspec.ValidationError, TypeError, ValueError) as problem:
        structlog.get_logger().warning("cold start", component=partition, why=f"no position of ours: {problem}")
        return None
    return saved


def _timestamp_ms(message: Any) -> int:
    kind, at_ms = message.timestamp()
    return NO_TIMESTAMP if kind == TIMESTAMP_NOT_AVAILABLE else int(at_ms)
