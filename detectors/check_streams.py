"""Made-up telemetry for the contract suite: quiet streams, and the change that each kind of incident makes.

Not the simulator of the demo: rows of features, as detectors see them, with Poisson arrivals, heavy-tailed cost and
noisy percentiles. Every number is invented.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Cadence, FloatArray
from schemas.cause import CAUSES
from schemas.gpu_window import MAXIMA
from schemas.gpu_window import SUMS as GPU_SUMS
from schemas.request_window import SUMS

ROW_S: dict[Cadence, float] = {"window": 10.0, "interval": 60.0}
"""Length of a row by cadence."""

Row = dict[str, FloatArray]


class QuietStream:
    """Rows of every feature for n healthy series.

    Parameters
    ----------
    n
        Series.
    seed
        Of the generator.
    window_s
        Length of a row.
    """

    def __init__(self, n: int, seed: int, window_s: float) -> None:
        self.n = n
        self.window_s = window_s
        self.rng = np.random.default_rng(seed)
        self.per_minute = np.exp(self.rng.uniform(np.log(20), np.log(300), n))
        self.error_share = self.rng.uniform(0.002, 0.03, n)
        self.cache_share = self.rng.uniform(0.3, 0.7, n)
        self.p95_ms = self.rng.uniform(800, 6_000, n)

    def row(self) -> Row:
        """The next row."""
        x = self._requests() | self._gpus() | self._pipeline()
        x["window_s"] = np.full(self.n, self.window_s)
        return x

    def _pipeline(self) -> Row:
        """A flow that keeps up; these draw no random numbers, so the other features stay what they were."""
        return {
            "delay_s": np.full(self.n, 12.0),
            "lag_messages": np.full(self.n, 40.0),
            "spool_share": np.zeros(self.n),
            "outbox_age_s": np.full(self.n, 0.5),
            "given_up": np.zeros(self.n),
            "lost_messages": np.zeros(self.n),
            "unread_partitions": np.zeros(self.n),
        }

    def _requests(self) -> Row:
        rng = self.rng
        x: Row = {name: np.zeros(self.n) for name in SUMS}
        n = rng.poisson(self.per_minute * self.window_s / 60)
        errors = rng.binomial(n, self.error_share)
        good = n - errors
        x["requests"], x["errors"] = n.astype(float), errors.astype(float)
        causes = rng.multinomial(errors, np.full(len(CAUSES), 1 / len(CAUSES)))
        for i, cause in enumerate(CAUSES):
            x[f"errors_{cause.label}"] = causes[:, i].astype(float)
        # A sum of heavy-tailed amounts: lognormal with the moments of the sum of `good` lognormal ones.
        cv2 = 1.5 / np.maximum(good, 1)
        sigma2 = np.log1p(cv2)
        tokens = np.round(good * 1_200 * np.exp(rng.normal(0, 1, self.n) * np.sqrt(sigma2) - sigma2 / 2))
        x["input_tokens"] = tokens
        x["output_tokens"] = np.round(tokens * 0.3)
        hits = rng.binomial(np.maximum(good, 1), self.cache_share) / np.maximum(good, 1)
        x["cache_read_tokens"] = np.round(tokens * hits)
        x["cost_input_pico"] = (tokens - x["cache_read_tokens"]) * 3e6
        x["cost_cache_read_pico"] = x["cache_read_tokens"] * 3e5
        x["cost_output_pico"] = x["output_tokens"] * 15e6
        x["cost_pico"] = x["cost_input_pico"] + x["cost_cache_read_pico"] + x["cost_output_pico"]
        x["usage_missing"] = rng.binomial(good, 0.002).astype(float)
        x["rejected"] = rng.binomial(n, 0.001).astype(float)
        x["quota_reports"] = good.astype(float)
        x["quota_used_ppm"] = np.round(good * np.clip(rng.normal(0.4, 0.03, self.n), 0, 1) * 1e6)
        noise = np.exp(rng.normal(0, 1, self.n) * (0.05 + 0.5 / np.sqrt(np.maximum(good, 1))))
        for name, factor in (("latency_ms", 1.0), ("ttft_ms", 0.2), ("tpot_ms", 0.01)):
            for quantile, part in (("p50", 0.5), ("p95", 1.0), ("p99", 1.4)):
                x[f"{name}_{quantile}"] = np.where(good > 0, self.p95_ms * factor * part * noise, np.nan)
        return x

    def _gpus(self) -> Row:
        rng, ms = self.rng, self.window_s * 1e3
        x: Row = {name: np.zeros(self.n) for name in GPU_SUMS}
        util: FloatArray = np.clip(rng.normal(0.6, 0.08, self.n), 0.05, 0.95)
        x |= {"samples": np.full(self.n, self.window_s / 5), "gpus": np.ones(self.n)}
        x |= {"busy_ms": np.full(self.n, ms), "busy_pico": np.full(self.n, ms * 8e5), "util_ms": np.full(self.n, ms)}
        x["util_ppm_ms"] = util * 1e6 * ms
        x["memory_total_bytes"] = np.full(self.n, 80e9)
        x["memory_used_bytes"] = np.full(self.n, 60e9)
        x["power_mw"] = util * 600e3
        running: FloatArray = rng.poisson(20, self.n).astype(np.float64)
        kv: FloatArray = np.clip(rng.normal(0.4, 0.05, self.n), 0, 1)
        x |= {"running_milli": running * 1e3, "tokens_milli": running * 40e3}
        x |= {"kv_cache_samples": x["samples"].copy(), "kv_cache_ppm": kv * 1e6 * x["samples"]}
        maxima = {"util": util, "temperature_c": 55 + 10 * util, "requests_running": running + 4.0,
                  "requests_waiting": np.zeros(self.n), "kv_cache_usage": np.minimum(kv + 0.05, 1)}  # fmt: skip
        return x | {f"{name}_max": maxima[name] for name in MAXIMA}


def changed(kind: str, row: Row, minutes: float) -> Row:
    """A quiet row as it looks `minutes` into an incident of that kind. Unknown kinds are returned unchanged."""
    x = {name: values.copy() for name, values in row.items()}
    good = x["requests"] - x["errors"]
    money = [name for name in x if name.startswith("cost_") and name.endswith("_pico")]
    if kind in ("cost_spike", "budget_burn"):
        factor = 6.0 if kind == "cost_spike" else 100.0
        for name in (*money, "requests", "input_tokens", "output_tokens", "cache_read_tokens"):
            x[name] *= factor
    elif kind in ("error_burst", "slo_burn"):
        failed = np.round(0.9 * good)
        x["errors"] += failed
        x["errors_vendor_capacity"] += failed
    elif kind == "latency_regression":
        for name in x:
            if name.startswith(("latency_ms", "ttft_ms")):
                x[name] *= 2.5
    elif kind == "quota_saturation":
        failed = np.round(0.5 * good)
        x["errors"] += failed
        x["errors_vendor_quota"] += failed
        x["quota_used_ppm"] = x["quota_reports"] * 1e6
    elif kind == "cache_regression":
        x["cost_input_pico"] = x["input_tokens"] * 3e6
        x["cache_read_tokens"] *= 0.05
    elif kind == "context_growth":
        x["input_tokens"] *= 4.0
    elif kind == "traffic_drop":
        for name in SUMS:
            x[name] = np.zeros_like(x[name])
    elif kind == "unpriced_model":
        x["unpriced_requests"], x["unpriced_tokens"] = good, x["input_tokens"].copy()
    elif kind == "data_quality":
        x["usage_missing"], x["rejected"] = np.round(0.6 * good), x["requests"] * 0.5
    elif kind == "pipeline_health":
        x["delay_s"], x["lag_messages"] = x["delay_s"] * 60, x["lag_messages"] * 1_000
    else:
        _change_gpu(kind, x, minutes)
    return x


def _change_gpu(kind: str, x: Row, minutes: float) -> None:
    ms = x["busy_ms"]
    if kind in ("gpu_saturation", "engine_saturation"):
        waiting = np.full_like(ms, 40.0 + 20.0 * minutes)
        x["waiting_milli"], x["requests_waiting_max"] = waiting * 1e3, waiting
        x["running_milli"] = np.full_like(ms, 256e3)
        x["requests_running_max"] = np.full_like(ms, 256.0)
        x["kv_cache_ppm"] = 0.995e6 * x["kv_cache_samples"]
        x["kv_cache_usage_max"] = np.full_like(ms, 1.0)
        x["preemptions"] = np.full_like(ms, 30.0)
        x["util_ppm_ms"], x["util_max"] = 0.995e6 * x["util_ms"], np.full_like(ms, 1.0)
    elif kind == "gpu_idle":
        x["held_idle_ms"], x["held_idle_pico"] = x["busy_ms"], x["busy_pico"]
        for name in ("busy_ms", "busy_pico", "util_ppm_ms", "running_milli", "tokens_milli"):
            x[name] = np.zeros_like(ms)
        for name in ("util_max", "requests_running_max"):
            x[name] = np.zeros_like(ms)
    elif kind == "gpu_fault":
        for name in ("xid_events", "xid_hardware_events", "ecc_events"):
            x[name] = np.ones_like(ms)
        x["unhealthy_ms"], x["unhealthy_pico"] = x["busy_ms"], x["busy_pico"]
        x["busy_ms"], x["busy_pico"] = np.zeros_like(ms), np.zeros_like(ms)
