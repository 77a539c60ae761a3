"""One window's samples → one row per GPU: how long it was in which state, at what cost, and what it reported.

Samples are put in the order of event time per GPU, whichever block or partition brought them. A sample speaks for the
time since the GPU's previous sample, so the spans of all samples add up to the time itself: nothing is counted twice
when two partitions carry the same GPU, and nothing is lost between windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.xid import HARDWARE_CODES
from flows.windows.gpu_bank import NEVER, GpuBank
from flows.windows.gpu_groups import BoolArray, Groups, spans, time_order
from flows.windows.gpu_owners import held, owners, place
from flows.windows.gpu_samples import NUMBERS, GpuSamples, TextArray
from schemas.columns import MISSING, FloatArray, IntArray
from schemas.gpu_window import COLUMN, MAXIMA, OWNER_DIMS, STATES, SUMS
from schemas.series import Series

_BUSY, _HELD_IDLE, _FREE, _UNHEALTHY = range(len(STATES))
_MS_PER_HOUR = 3_600_000
_HARDWARE = np.array(HARDWARE_CODES, np.int64)

# Bounds per sample, so that sums over a window and over tens of thousands of GPUs stay below 2**63.
_MAX_BYTES = 1 << 48
_MAX_MILLI = 10**13
_MAX_COUNT = 1 << 40


@dataclass(frozen=True, slots=True)
class StateRules:
    """When a GPU counts as busy, idle, free or unhealthy; docs/gpus.md gives the reasons.

    Parameters
    ----------
    idle_util
        Utilisation (0-1) below which a GPU that runs no request is idle.
    free_memory_share
        Used share of its memory up to which a GPU that nobody holds is free.
    max_gap_ms
        A sample speaks for at most so long before it, and a reading stands in for a missing one for so long.
    owner_expiry_ms
        How long the last-known owner stands in for a missing one.
    fault_quiet_ms
        How long a GPU stays unhealthy after its last hardware fault.
    """

    idle_util: float
    free_memory_share: float
    max_gap_ms: int
    owner_expiry_ms: int
    fault_quiet_ms: int


@dataclass(slots=True)
class GpuRows:
    """A window's rows of single GPUs, sorted by the key of their series.

    Parameters
    ----------
    series, keys
        Series and its key, shape (n,).
    sums, maxima
        As in `GpuWindows`.
    texts
        By name of `OWNER_DIMS`, `cluster` and `node`.
    edges
        Newly seen XIDs in the order of their time: (row, code).
    """

    series: list[Series]
    keys: list[str]
    sums: IntArray
    maxima: FloatArray
    texts: dict[str, TextArray]
    edges: list[tuple[int, int]]


def account(
    parts: Sequence[GpuSamples], bank: GpuBank, rules: StateRules, *, start_ns: int, window_ns: int
) -> GpuRows | None:
    """Account one window and carry the GPUs' state over to the next.

    Parameters
    ----------
    parts
        All samples of the window, at least one, in any order.
    bank
        State after the window before; changed in place.
    rules
        State rules.
    start_ns, window_ns
        The window.

    Returns
    -------
    GpuRows or None
        None where there is no room for any GPU of the window.
    """
    start_ms = start_ns // 1_000_000
    named = [part.gpus() for part in parts]
    names = [name for part in named for name in part]
    slot_of_name = bank.admit(bank.identify(names, start_ms), start_ms)
    before = np.cumsum([0] + [len(part) for part in named[:-1]])
    name = np.concatenate([part.name + b for part, b in zip(parts, before, strict=True)])
    order = time_order(parts, slot_of_name[name])
    order = order[slot_of_name[name[order]] >= 0]  # the samples of GPUs that there is no room for are left out
    if not len(order):
        return None
    name = name[order]
    g = Groups(slot_of_name[name])
    bank.forget_silent(g.slots, start_ms)
    at_ms = np.concatenate([part.at_ns for part in parts])[order] // 1_000_000
    x = {column: np.concatenate([part.number(column) for part in parts])[order] for column in NUMBERS}
    texts = {dim: np.concatenate([part.text(dim) for part in parts])[order] for dim in OWNER_DIMS}

    c = bank.columns
    span = spans(g, at_ms, c["last_ms"][g.slots], rules.max_gap_ms, window_ns // 1_000_000)
    events = _events(g, x, bank, texts["pod"].astype(np.bool_), texts["pod"])
    holding = held(g, at_ms, texts, bank, rules.owner_expiry_ms)
    owner = owners(g, at_ms, texts, events.pod_changed, bank, rules.owner_expiry_ms)
    sums = _account(g, at_ms, span, x, holding, events, bank, rules)
    place(g, names, name, x, bank)
    c["last_ms"][g.slots] = at_ms[g.ends]

    sorted_keys = c["series_key"][g.slots].tolist()
    by_key = np.array(sorted(range(len(sorted_keys)), key=sorted_keys.__getitem__), np.int64)
    row_of = np.empty(len(by_key), np.int64)
    row_of[by_key] = np.arange(len(by_key))
    seen = np.flatnonzero(events.xid_edge)
    seen = seen[np.lexsort((row_of[g.gid[seen]], at_ms[seen]))]
    return GpuRows(
        series=c["series"][g.slots][by_key].tolist(),
        keys=[sorted_keys[i] for i in by_key.tolist()],
        sums=sums[by_key],
        maxima=_maxima(g, x)[by_key],
        texts={dim: values[by_key] for dim, values in owner.items()}
        | {dim: c[dim][g.slots][by_key] for dim in ("cluster", "node")},
        edges=list(zip(row_of[g.gid[seen]].tolist(), x["xid"][seen].tolist(), strict=True)),
    )


# ---------------------------------------------------------------------- events
@dataclass(slots=True)
class _Events:
    xid_edge: BoolArray
    hardware: BoolArray
    ecc: IntArray
    preemptions: IntArray
    cleared: BoolArray
    pod_changed: BoolArray


def _events(
    g: Groups, x: dict[str, npt.NDArray[np.generic]], bank: GpuBank, pod_named: BoolArray, pod: TextArray
) -> _Events:
    """What happened between samples: changes of gauges that stay, increases of counters that may restart."""
    c = bank.columns
    xid, before = _with_previous(g, np.asarray(x["xid"], np.int64), c["xid"], c)
    edge = (before != MISSING) & (xid > 0) & (xid != before)
    increases = {}
    for column, carried in (("ecc_uncorrected", "ecc"), ("preemptions", "preemptions")):
        value, previous = _with_previous(g, np.asarray(x[column], np.int64), c[carried], c)
        # A counter that fell has restarted from 0, as in Prometheus' increase().
        grown = np.where(value >= previous, value - previous, value)
        increases[carried] = np.where((value != MISSING) & (previous != MISSING), np.minimum(grown, _MAX_COUNT), 0)
    at = g.last_before(pod_named)
    pod_before = np.where(at >= 0, pod[at], c["pod"][g.slots][g.gid])
    changed = pod_named & pod_before.astype(np.bool_) & (pod != pod_before)
    return _Events(
        xid_edge=edge,
        hardware=(edge & np.isin(xid, _HARDWARE)) | (increases["ecc"] > 0),
        ecc=increases["ecc"],
        preemptions=increases["preemptions"],
        cleared=((before > 0) & (xid == 0)) | changed,
        pod_changed=np.asarray(changed, np.bool_),
    )


def _with_previous(
    g: Groups, values: IntArray, carried: IntArray, columns: dict[str, npt.NDArray[np.generic]]
) -> tuple[IntArray, IntArray]:
    """A column with the last value reported before each sample; the group's newest value is carried on."""
    reported = values != MISSING
    at = g.last_before(reported)
    before = np.where(at >= 0, values[at], carried[g.slots][g.gid])
    newest = g.last(reported)[g.ends]
    carried[g.slots] = np.where(newest >= 0, values[newest], carried[g.slots])
    return values, before


# ---------------------------------------------------------------------- the account
def _account(
    g: Groups,
    at_ms: IntArray,
    span: IntArray,
    x: dict[str, npt.NDArray[np.generic]],
    holding: BoolArray,
    events: _Events,
    bank: GpuBank,
    rules: StateRules,
) -> IntArray:
    c = bank.columns

    def reading(column: str, carried: str, carried_at: str) -> tuple[FloatArray, BoolArray]:
        """Each sample's value, or the last one before it if that is recent; and whether there is one."""
        values = _as_float(x[column])
        reported = ~np.isnan(values)
        at = g.last(reported)
        value = np.where(at >= 0, values[at], c[carried][g.slots][g.gid])
        since = np.where(at >= 0, at_ms[at], c[carried_at][g.slots][g.gid])
        c[carried][g.slots] = value[g.ends]
        newest = since[g.ends]
        known = at_ms - since <= rules.max_gap_ms
        c[carried_at][g.slots] = newest
        return np.where(known, value, np.nan), known

    util, has_util = reading("util", "util", "util_ms")
    running, has_running = reading("requests_running", "running", "running_ms")
    used, total, has_memory = _memory(g, at_ms, x, bank, rules)

    with np.errstate(invalid="ignore"):
        active = (util >= rules.idle_util) | (running > 0)
        occupied = has_memory & (used > rules.free_memory_share * total)
    state = np.full(len(span), _BUSY)
    state[(has_util | has_running) & ~active & (holding | occupied)] = _HELD_IDLE
    state[~active & ~holding & ~occupied] = _FREE
    state[_unhealthy(g, at_ms, events, bank, rules)] = _UNHEALTHY

    price = np.asarray(x["usd_per_hour_pico"], np.int64)
    at = g.last(price != MISSING)
    price = np.where(at >= 0, price[at], c["price"][g.slots][g.gid])
    c["price"][g.slots] = price[g.ends]
    known_price = price != MISSING
    # Hours before milliseconds would overflow: 1e6 USD per hour are 1e18 pico-USD.
    whole, rest = np.divmod(np.where(known_price, price, 0), _MS_PER_HOUR)
    cost = whole * span + rest * span // _MS_PER_HOUR

    out = np.zeros((len(g.starts), len(SUMS)), np.int64)

    def put(name: str, values: npt.NDArray[np.integer] | BoolArray) -> None:
        out[:, COLUMN[name]] = values

    put("samples", g.ends - g.starts + 1)
    put("gpus", np.ones(len(g.starts), np.int64))
    for number, name in enumerate(STATES):
        mine = state == number
        put(f"{name}_ms", g.add(np.where(mine, span, 0)))
        put(f"{name}_pico", g.add(np.where(mine, cost, 0)))
    put("unpriced_ms", g.add(np.where(known_price, 0, span)))
    put("util_ppm_ms", g.add(np.where(has_util, _scaled(util, 1e6, 1_000_000), 0) * span))
    put("util_ms", g.add(np.where(has_util, span, 0)))
    for name in ("memory_used_bytes", "memory_total_bytes"):
        values = np.asarray(x[name], np.int64)
        put(name, g.mean(np.minimum(values, _MAX_BYTES), values != MISSING))
    for name, column in (
        ("power_mw", "power_w"), ("running_milli", "requests_running"), ("waiting_milli", "requests_waiting"),
        ("tokens_milli", "tokens_per_s"),
    ):  # fmt: skip
        floats = _as_float(x[column])
        put(name, g.mean(_scaled(floats, 1e3, _MAX_MILLI), ~np.isnan(floats)))
    kv = _as_float(x["kv_cache_usage"])
    put("kv_cache_samples", g.add(~np.isnan(kv)))
    put("kv_cache_ppm", g.add(_scaled(kv, 1e6, 1_000_000)))
    put("throttled_samples", g.add(np.asarray(x["throttled"]) == 1))
    put("xid_events", g.add(events.xid_edge))
    put("xid_hardware_events", g.add(events.xid_edge & np.isin(np.asarray(x["xid"]), _HARDWARE)))
    put("ecc_events", g.add(events.ecc))
    put("preemptions", g.add(events.preemptions))
    return out


def _memory(
    g: Groups, at_ms: IntArray, x: dict[str, npt.NDArray[np.generic]], bank: GpuBank, rules: StateRules
) -> tuple[IntArray, IntArray, BoolArray]:
    """Used and total memory at each sample, from the last sample that reported both."""
    c = bank.columns
    used, total = np.asarray(x["memory_used_bytes"], np.int64), np.asarray(x["memory_total_bytes"], np.int64)
    at = g.last((used != MISSING) & (total > 0))
    used = np.where(at >= 0, used[at], c["memory_used"][g.slots][g.gid])
    total = np.where(at >= 0, total[at], c["memory_total"][g.slots][g.gid])
    since = np.where(at >= 0, at_ms[at], c["memory_ms"][g.slots][g.gid])
    for carried, values in (("memory_used", used), ("memory_total", total), ("memory_ms", since)):
        c[carried][g.slots] = values[g.ends]
    return used, total, np.asarray(at_ms - since <= rules.max_gap_ms)


def _unhealthy(g: Groups, at_ms: IntArray, events: _Events, bank: GpuBank, rules: StateRules) -> BoolArray:
    """From a hardware fault until a quiet time has passed, the XID went back to 0, or a new pod was placed there."""
    c = bank.columns
    fault, cleared = g.last(events.hardware), g.last(events.cleared & ~events.hardware)
    since = np.where(fault >= 0, at_ms[fault], c["fault_ms"][g.slots][g.gid])
    since = np.where(cleared > fault, NEVER, since)
    c["fault_ms"][g.slots] = since[g.ends]
    return np.asarray(at_ms - since <= rules.fault_quiet_ms)


def _maxima(g: Groups, x: dict[str, npt.NDArray[np.generic]]) -> FloatArray:
    return np.column_stack([np.fmax.reduceat(_as_float(x[name]), g.starts) for name in MAXIMA])


def _as_float(values: npt.NDArray[np.generic]) -> FloatArray:
    return np.asarray(values, np.float64)


def _scaled(values: FloatArray, factor: float, at_most: int) -> IntArray:
    """Rounded integers in a finer unit; 0 for NaN."""
    return np.rint(np.minimum(np.nan_to_num(values, nan=0.0) * factor, at_most)).astype(np.int64)
