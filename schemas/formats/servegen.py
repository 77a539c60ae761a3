"""Format `servegen`: traffic statistics of Alibaba Cloud Model Studio (github.com/alibaba/ServeGen) as CSV of windows.

References
----------
Y. Xiang et al. (2025), ServeGen: Workload characterization and generation of large language model serving in
production, arXiv:2505.09999.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, BinaryIO, ClassVar

from msgspec import Meta, Struct

from schemas.errors import BadEvent, Reason
from schemas.formats.base import Stream
from schemas.formats.csv_lines import csv_lines, fields, typed
from schemas.request_event import RequestEvent

HEADER = ("model", "client", "window_start_s", "rate_rps", "interarrival_cv", "arrival")

WINDOW_S = 600
"""Length of the published windows."""

SLICE_S = 5
"""`lines` cuts every window into slices of this length, so that the events of different clients interleave and none
lies further back in time than the dataflow's default `windows.disorder_s`."""

SLICES = WINDOW_S // SLICE_S

MOST_REQUESTS = 100_000
"""Requests that one message may stand for, so that none fills the memory. Slices stay below it at any accepted rate."""

TRACE_START_NS = 1_735_689_600 * 10**9
"""2025-01-01T00:00:00Z stands for second 0 of the trace, which publishes no date; the date here is ours."""

PROVIDER = "alibaba_cloud"

_ShortName = Annotated[str, Meta(max_length=100)]


class _Window(Struct):
    model: _ShortName
    client: Annotated[int, Meta(ge=0, le=10**9)]
    window_start_s: Annotated[int, Meta(ge=0, le=10**9)]
    rate_rps: Annotated[float, Meta(ge=0, le=10_000)]
    interarrival_cv: float
    arrival: _ShortName


class _Slice(_Window):
    slice_no: Annotated[int, Meta(ge=0, lt=SLICES)]

    @property
    def requests(self) -> int:
        """Requests in the whole window."""
        return round(self.rate_rps * WINDOW_S)


class ServeGenFormat:
    """One row is a window of 600 s of one client: its mean rate. It becomes `round(rate_rps * 600)` requests.

    They are spread evenly over the window, request j of n in the middle of the j-th of n equal parts; the published
    burstiness (`interarrival_cv`) is not imitated. The trace has no tokens here (they are statistics in another file)
    and no failures; status 200 is assumed.
    """

    name: ClassVar[str] = "servegen"
    stream: ClassVar[Stream] = "requests"

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Rows cut into slices of 5 s, in order of time; a seventh column holds the slice's number.

        The published file is ordered by model and client, each from the trace's start, so that its rows as they stand
        would jump back in time. The whole file is held in memory meanwhile; slices without requests are left out.
        """
        lines = csv_lines(self.name, HEADER, file)
        windows: dict[int, list[tuple[int, bytes]]] = {}
        start_s = 0
        for line in lines:
            requests = -1
            # what cannot be read is passed on once as it is: `decode` refuses it, so that it becomes a dead letter
            with suppress(BadEvent):
                row = typed([*fields(line), "0"], _Slice)
                start_s, requests = row.window_start_s, row.requests
            windows.setdefault(start_s, []).append((requests, line))
        return _slices(windows)

    def decode(self, payload: bytes) -> Iterator[RequestEvent]:
        """Decode one row as published (all of its window) or with the slice's number as seventh column."""
        values = fields(payload)
        if len(values) == len(HEADER):
            window = typed([*values, "0"], _Slice)
            if window.requests > MOST_REQUESTS:
                raise BadEvent(Reason.OUT_OF_RANGE, f"more than {MOST_REQUESTS} requests in one line; send its slices")
            return _events(window, 0, window.requests)
        window = typed(values, _Slice)
        return _events(window, _first(window.requests, window.slice_no), _first(window.requests, window.slice_no + 1))


def _first(requests: int, slice_no: int) -> int:
    """Number of requests of a window that lie before the slice, in exact integers.

    Request j lies at (2j + 1) * WINDOW_S / (2n), the slice starts at slice_no * SLICE_S.
    """
    before = 2 * slice_no * requests - SLICES
    return max(0, -(-before // (2 * SLICES)))


def _events(window: _Slice, first: int, end: int) -> Iterator[RequestEvent]:
    start_ns = TRACE_START_NS + window.window_start_s * 10**9
    requests = window.requests
    client = f"client-{window.client}"
    event_id = f"servegen-{window.model}-{window.client}-{window.window_start_s}-"
    for j in range(first, end):
        yield RequestEvent(
            at=start_ns + (2 * j + 1) * WINDOW_S * 10**9 // (2 * requests),
            event_id=f"{event_id}{j}",
            provider=PROVIDER,
            model=window.model,
            user_id=client,
            status=200,
        )


def _slices(windows: dict[int, list[tuple[int, bytes]]]) -> Iterator[bytes]:
    for start_s in sorted(windows):
        rows = windows[start_s]
        for slice_no in range(SLICES):
            for requests, line in rows:
                if requests < 0:
                    if slice_no == 0:
                        yield line
                elif _first(requests, slice_no) < _first(requests, slice_no + 1):
                    yield b"%s,%d" % (line, slice_no)
