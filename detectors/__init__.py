"""Online detectors: banks over many series that are River estimators too. See `docs/detectors.md`.

`DETECTORS` names every detector; adding one is its file, its test and one line here.
"""

from __future__ import annotations

from detectors.base import Detector
from detectors.budget_burn import BudgetBurn
from detectors.cache_regression import CacheRegression
from detectors.context_growth import ContextGrowth
from detectors.cost_spike import CostSpike
from detectors.data_quality import DataQuality
from detectors.engine_saturation import EngineSaturation
from detectors.error_burst import ErrorBurst
from detectors.gpu_fault import GpuFault
from detectors.gpu_idle import GpuIdle
from detectors.gpu_saturation import GpuSaturation
from detectors.latency_regression import LatencyRegression
from detectors.pipeline_health import PipelineHealth
from detectors.quota_saturation import QuotaSaturation
from detectors.river_model import RiverModel
from detectors.slo_burn import SloBurn
from detectors.traffic_drop import TrafficDrop
from detectors.unpriced_model import UnpricedModel

DETECTORS: dict[str, type[Detector]] = {
    "cost_spike": CostSpike,
    "budget_burn": BudgetBurn,
    "error_burst": ErrorBurst,
    "slo_burn": SloBurn,
    "latency_regression": LatencyRegression,
    "quota_saturation": QuotaSaturation,
    "cache_regression": CacheRegression,
    "context_growth": ContextGrowth,
    "traffic_drop": TrafficDrop,
    "unpriced_model": UnpricedModel,
    "data_quality": DataQuality,
    "engine_saturation": EngineSaturation,
    "gpu_saturation": GpuSaturation,
    "gpu_idle": GpuIdle,
    "gpu_fault": GpuFault,
    "pipeline_health": PipelineHealth,
    "river_model": RiverModel,
}
"""Every detector by its name in the settings."""

ON_REQUEST: tuple[str, ...] = ("river_model",)
"""Detectors that run only where the settings name them."""
