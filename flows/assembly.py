"""From settings to the parts of the flow. Parts take plain arguments; this file alone knows where they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from detectors import DETECTORS, ON_REQUEST
from detectors.base import Detector
from detectors.budget_burn import BudgetBurn
from detectors.slo_burn import SloBurn
from flows.banks import Plan
from flows.detect import RequestDetection
from flows.detect_gpus import GpuDetection
from flows.incidents.judge import Judge
from flows.incidents.policy import policies
from flows.incidents.silences import SilenceRule, Silences
from flows.partition import GpuPartition, RequestPartition
from flows.pipeline import PipelineWatch, Pressure, Troubled
from flows.pricing import PriceBook
from flows.settings import Budget, Settings, Slo
from flows.sources.item import Item
from flows.steps import Priced, PricedGpus
from flows.windows.fold import RequestFold
from flows.windows.gpus import GpuMerge
from flows.windows.merge import RequestMerge
from schemas.errors import BadSettings
from schemas.formats.base import Format
from schemas.series import Series

NS = 1_000_000_000


class Parts:
    """Builds every part of the flow from one `Settings`.

    Parameters
    ----------
    settings
        Checked settings.
    book
        Loaded prices.
    """

    def __init__(self, settings: Settings, book: PriceBook) -> None:
        self.settings = settings
        self.book = book
        w = settings.windows
        self.window_ns = w.length_s * NS
        self.allowed_lateness_ns = int(w.allowed_lateness_s * NS)
        self.fold = RequestFold(window_ns=self.window_ns, grouping_sets=w.grouping_sets, shards=w.shards)
        self.policies = policies(settings.incidents.kinds)
        self.silences = Silences(
            [SilenceRule(s.matchers, _ns(s.starts_at), _ns(s.ends_at)) for s in settings.incidents.silences]
        )
        self._plans = {stream: _plan(settings, stream) for stream in ("requests", "gpus")}

    @property
    def shape(self) -> str:
        """What saved windows and detectors depend on: shards and window length, such as `8x10s`."""
        return f"{self.fold.shards}x{self.settings.windows.length_s}s"

    # ------------------------------------------------------------------ decode
    def partition(
        self,
        topic: str,
        number: int,
        format: Format,
        saved: bytes | None,
    ) -> RequestPartition | GpuPartition:
        """The decoder of one partition, of the stream that its format belongs to."""
        w, s = self.settings.windows, self.settings
        common: dict[str, Any] = {
            "window_ns": self.window_ns,
            "disorder_ns": int(w.disorder_s * NS),
            "allowed_lateness_ns": self.allowed_lateness_ns,
            "max_clock_ahead_ns": int(w.max_clock_ahead_s * NS),
            "max_message_bytes": s.kafka.max_message_bytes,
            "state": saved,
        }
        if format.stream == "gpus":
            return GpuPartition(topic, number, format, **common)
        return RequestPartition(
            topic,
            number,
            format,
            group_dimensions=self.fold.dimensions,
            max_values_per_dimension=w.max_values_per_dimension,
            cache_ttl_ns=int(s.pricing.cache_ttl_s * NS),
            **common,
        )

    # ------------------------------------------------------------------ price
    def price(self, item: Item[Any]) -> Priced:
        """Price a block."""
        return Priced(item, self.book.price(item.batch.columns) if item.batch is not None else None)

    def price_gpus(self, item: Item[Any]) -> PricedGpus:
        """Fill in what a GPU costs per hour."""
        return PricedGpus(item, self.book.price_gpus(item.batch.columns) if item.batch is not None else None)

    # ------------------------------------------------------------------ windows
    def merge(self, partitions: Sequence[str], saved: bytes | None) -> RequestMerge:
        """Windows of one shard."""
        w = self.settings.windows
        return RequestMerge(
            partitions,
            window_ns=self.window_ns,
            allowed_lateness_ns=self.allowed_lateness_ns,
            max_rows=max(w.max_series // w.shards, 1),
            saved=saved,
        )

    def merge_gpus(self, saved: bytes | None) -> GpuMerge:
        """Windows of all GPUs."""
        w = self.settings.windows
        return GpuMerge(
            window_ns=self.window_ns,
            allowed_lateness_ns=self.allowed_lateness_ns,
            evict_after_s=w.evict_after_s,
            max_gpus=w.max_series,
            saved=saved,
        )

    # ------------------------------------------------------------------ judgement
    def detect_requests(self, saved: bytes | None) -> RequestDetection:
        """Detectors of one shard of requests."""
        w = self.settings.windows
        return RequestDetection(
            self._plans["requests"],
            window_ns=self.window_ns,
            interval_ns=self.settings.detection.interval_s * NS,
            max_series=max(w.max_series // w.shards, 1),
            evict_after_ns=int(w.evict_after_s * NS),
            saved=saved,
        )

    def detect_gpus(self, saved: bytes | None) -> GpuDetection:
        """Detectors of the GPU flow."""
        w = self.settings.windows
        return GpuDetection(
            self._plans["gpus"],
            window_ns=self.window_ns,
            interval_ns=self.settings.detection.interval_s * NS,
            max_series=4 * w.max_series,
            evict_after_ns=int(w.evict_after_s * NS),
            saved=saved,
        )

    def judge(self, shards: Sequence[str], saved: bytes | None) -> Judge:
        """The judge over all shards."""
        i = self.settings.incidents
        return Judge(
            shards,
            self.policies,
            cold_start_s=i.cold_start_s,
            reminder_s=i.reminder_s,
            max_open=i.max_open,
            silences=self.silences,
            dashboard_url=i.dashboard_url,
            runbook_url=i.runbook_url,
            saved=saved,
        )

    def watch(self, pressure: Pressure, troubled: Troubled, saved: bytes | None) -> PipelineWatch:
        """The watch over the flow itself."""
        return PipelineWatch(
            self.policies,
            pressure=pressure,
            troubled=troubled,
            silences=self.silences,
            runbook_url=self.settings.incidents.runbook_url,
            parameters=self.settings.detection.parameters.get("pipeline_health"),
            saved=saved,
        )


def _ns(at: str | None) -> int | None:
    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as problem:
        raise BadSettings(f"settings: {at!r} is no RFC 3339 time - at `$.incidents.silences`") from problem
    if moment.tzinfo is None:
        raise BadSettings(f"settings: {at!r} has no time zone; end it with Z - at `$.incidents.silences`")
    return int(moment.timestamp() * NS)


def _plan(settings: Settings, stream: str) -> Plan:
    d = settings.detection
    factories: dict[str, Callable[[], Detector]] = {}
    slos: dict[str, Slo] = {}
    budgets: dict[str, Budget] = {}
    for name, cls in DETECTORS.items():
        given = d.parameters.get(name, {})
        if cls.stream != stream or name in d.disabled or (name in ON_REQUEST and name not in d.parameters):
            continue
        if cls is SloBurn:
            for slo in d.slos:
                slos[f"{name}/{slo.name}"] = slo
                causes = tuple(slo.exclude_causes)
                factories[f"{name}/{slo.name}"] = partial(SloBurn, objective=None, excluded_causes=causes, **given)
        elif cls is BudgetBurn:
            for budget in d.budgets:
                budgets[f"{name}/{budget.name}"] = budget
                factories[f"{name}/{budget.name}"] = partial(BudgetBurn, **given)
        else:
            factories[name] = partial(cls, **given)
    for name, make in factories.items():
        try:
            make()
        except (TypeError, ValueError) as problem:
            raise BadSettings(
                f"settings: {problem} - at `$.detection.parameters.{name.partition('/')[0]}`. See docs/detectors.md."
            ) from problem

    def greet(name: str, detector: Detector, slot: int, series: Series) -> None:
        if isinstance(detector, SloBurn) and fits(slos[name].dims, series):
            detector.set_objective(np.array([slot]), slos[name].objective)
        elif isinstance(detector, BudgetBurn) and fits(budgets[name].dims, series):
            detector.set_budget(np.array([slot]), budgets[name].usd, budgets[name].period_s)

    return Plan(factories, greet)


def fits(wanted: dict[str, str], series: Series) -> bool:
    """Whether a series is one of those that an SLO or budget names; `*` stands for every value."""
    have = series.as_dict()
    return have.keys() == wanted.keys() and all(v in ("*", have[d]) for d, v in wanted.items())
