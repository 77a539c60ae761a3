"""Closed windows as JSON lines: for `--windows`, and for people who want to look."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from flows.incidents.text import rfc3339
from schemas import gpu_window, request_window
from schemas.gpu_window import GpuWindows
from schemas.money import to_usd
from schemas.request_window import RequestWindows


def lines(windows: RequestWindows | GpuWindows) -> Iterator[bytes]:
    """One line per row: window, version, dimensions, then every column that is not 0. Money in US dollars, exact."""
    head = {
        "stream": "requests" if isinstance(windows, RequestWindows) else "gpus",
        "start": rfc3339(windows.start_ns),
        "end": rfc3339(windows.end_ns),
        "version": windows.version,
    }
    names = request_window.SUMS if isinstance(windows, RequestWindows) else gpu_window.SUMS
    for i in sorted(range(len(windows)), key=lambda i: windows.series[i].key()):
        row: dict[str, Any] = {**head, "dims": windows.series[i].as_dict()}
        row |= {_column(n): _value(n, v) for n, v in zip(names, windows.sums[i].tolist(), strict=True) if v}
        if isinstance(windows, RequestWindows):
            for name, q in windows.quantiles.items():
                for p, value in zip(request_window.QUANTILES, q[i].tolist(), strict=True):
                    if not np.isnan(value):
                        row[f"{name}_p{round(p * 100)}"] = round(value, 6)
        else:
            row |= {
                f"{n}_max": round(v, 6)
                for n, v in zip(gpu_window.MAXIMA, windows.maxima[i].tolist(), strict=True)
                if not np.isnan(v)
            }
            row |= {n: texts[i] for n, texts in windows.owners.items() if texts[i]}
            if windows.xids[i]:
                row["xids"] = list(windows.xids[i])
        yield orjson.dumps(row, default=_decimal) + b"\n"


def _column(name: str) -> str:
    return f"{name.removesuffix('_pico')}_usd" if name.endswith("_pico") else name


def _value(name: str, value: int) -> int | Decimal:
    return to_usd(value) if name.endswith("_pico") else value


def _decimal(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError
