"""Who holds a GPU, and where it sits: what the samples say, and what is remembered while they say nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flows.windows.gpu_bank import NEVER, GpuBank
from flows.windows.gpu_groups import BoolArray, Groups
from flows.windows.gpu_samples import GpuName, TextArray
from schemas.columns import MISSING, IntArray
from schemas.gpu_window import OWNER_DIMS

_HOLDER_DIMS = ("pod", "team", "model")
_EXPIRING_DIMS = ("namespace", "pod", "team", "model")


def held(g: Groups, at_ms: IntArray, texts: dict[str, TextArray], bank: GpuBank, expiry_ms: int) -> BoolArray:
    """Whether a pod, team or model was named at each sample, or not long before."""
    c = bank.columns
    named = texts["pod"].astype(np.bool_)
    carried = c["pod_ms"][g.slots]
    for dim in _HOLDER_DIMS[1:]:
        named = named | texts[dim].astype(np.bool_)
        carried = np.maximum(carried, c[f"{dim}_ms"][g.slots])
    at = g.last(named)
    since = np.where(at >= 0, at_ms[at], carried[g.gid])
    return np.asarray(at_ms - since <= expiry_ms)


def owners(
    g: Groups, at_ms: IntArray, texts: dict[str, TextArray], pod_changed: BoolArray, bank: GpuBank, expiry_ms: int
) -> dict[str, TextArray]:
    """Who held each GPU at the end of the window; a new pod sweeps away what was known of the one before."""
    c = bank.columns
    now = at_ms[g.ends]
    changed_at = g.last(pod_changed)[g.ends]
    out: dict[str, TextArray] = {}
    for dim in OWNER_DIMS:
        at = g.last(texts[dim].astype(np.bool_))[g.ends]
        expires = dim in _EXPIRING_DIMS
        fresh = (at >= 0) & (~np.bool_(expires) | (at >= changed_at))
        swept = (changed_at >= 0) if expires else np.zeros(len(at), np.bool_)
        value = np.where(fresh, texts[dim][at], np.where(swept, "", c[dim][g.slots]))
        c[dim][g.slots] = value
        if expires:
            since = np.where(fresh, at_ms[at], np.where(swept, NEVER, c[f"{dim}_ms"][g.slots]))
            c[f"{dim}_ms"][g.slots] = since
            value = np.where(now - since <= expiry_ms, value, "")
        out[dim] = value
    return out


def place(
    g: Groups, names: Sequence[GpuName], name: IntArray, x: dict[str, npt.NDArray[np.generic]], bank: GpuBank
) -> None:
    """Where each GPU sits: what its last device reading said; an engine may name the node differently."""
    c = bank.columns
    device = ~np.isnan(np.asarray(x["util"], np.float64)) | ~np.isnan(np.asarray(x["power_w"], np.float64))
    device |= ~np.isnan(np.asarray(x["temperature_c"], np.float64))
    device |= np.asarray(x["memory_used_bytes"], np.int64) != MISSING
    at = g.last(device)[g.ends]
    known = (c["node"][g.slots] != "").astype(np.bool_)
    chosen = name[np.where(at >= 0, at, g.ends)].tolist()
    keep = ((at < 0) & known).tolist()
    old = zip(c["cluster"][g.slots].tolist(), c["node"][g.slots].tolist(), strict=True)
    clusters, nodes = [], []
    for i, (cluster, node) in enumerate(old):
        if not keep[i]:
            said = names[chosen[i]]
            cluster = said[0] or (cluster if said[1] == node else "")
            node = said[1]
        clusters.append(cluster)
        nodes.append(node)
    bank.name_series(g.slots, clusters, nodes)
