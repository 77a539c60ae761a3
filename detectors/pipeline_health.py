"""Tidegauge itself: behind, or unable to hand over what it has."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column
from detectors.tail import OPEN_SCORE

STEEPNESS = 0.25
"""Score added for every doubling of the worst pressure beyond its limit."""


class PipelineHealth(Detector):
    """Deterministic: the worst of six pressures against its limit.

    A pressure of 1 (at its limit) scores `OPEN_SCORE`; every doubling adds `STEEPNESS`, every halving takes it away.

    Parameters
    ----------
    max_delay_s
        How far closed windows may lie behind the clock.
    max_spool_share
        Share of the spool that may be in use.
    max_outbox_age_s
        How long an incident may wait for a receiver.
    """

    kind = "pipeline_health"
    stream = "pipeline"
    cadence = "window"
    features = (
        "delay_s",
        "lag_messages",
        "spool_share",
        "outbox_age_s",
        "given_up",
        "lost_messages",
        "unread_partitions",
    )
    unit = "s behind"
    effect_unit = "times its limit"

    def __init__(
        self, max_delay_s: float = 120.0, max_spool_share: float = 0.5, max_outbox_age_s: float = 600.0
    ) -> None:
        self.max_delay_s = max_delay_s
        self.max_spool_share = max_spool_share
        self.max_outbox_age_s = max_outbox_age_s
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return {"seen_s": np.zeros(n)}

    def _pressures(self, x: Features) -> tuple[FloatArray, list[str]]:
        delay = np.nan_to_num(column(x, "delay_s"))
        # Being behind counts only while messages wait: a quiet stream is not late.
        late = np.where(np.nan_to_num(column(x, "lag_messages")) > 0, delay, 0.0) / self.max_delay_s
        spool = np.nan_to_num(column(x, "spool_share")) / self.max_spool_share
        outbox = np.nan_to_num(column(x, "outbox_age_s")) / self.max_outbox_age_s
        # Of these, any at all is as bad as another pressure at its limit.
        any_at_all = [
            np.where(np.nan_to_num(column(x, name)) > 0, 1.0, 0.0)
            for name in ("given_up", "lost_messages", "unread_partitions")
        ]
        words = [
            "events wait in Kafka",
            "rows wait for ClickHouse",
            "incidents wait for a receiver",
            "a receiver was given up",
            "Kafka deleted messages before they were read",
            "new partitions of a topic are not read",
        ]
        return np.stack([late, spool, outbox, *any_at_all]), words

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        pressures, words = self._pressures(x)
        worst = pressures.max(axis=0)
        with np.errstate(divide="ignore"):
            score = np.where(worst > 0, OPEN_SCORE + STEEPNESS * np.log2(worst), 0.0)
        score = np.clip(np.nan_to_num(score, neginf=0.0), 0.0, 1.0)
        n = len(score)
        detail = [words[int(i)] + "." if w > 0 else "" for i, w in zip(pressures.argmax(axis=0), worst, strict=True)]
        return Judgement(
            score,
            np.nan_to_num(column(x, "delay_s")),
            np.full(n, self.max_delay_s),
            np.full(n, np.nan),
            worst,
            np.nan_to_num(column(x, "lag_messages")),
            detail,
        )

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Nothing to learn: being behind is never normal."""
        self.state["seen_s"] = self.state["seen_s"] + column(x, "window_s")
