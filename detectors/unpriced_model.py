"""Usage whose price is not known: nobody sees what it costs."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column
from detectors.tail import OPEN_SCORE


class UnpricedModel(Detector):
    """Deterministic: tokens without a price.

    Failed requests of an unknown model (a misspelt name) use no tokens and score 0. Any unpriced token scores
    `OPEN_SCORE`, and every factor of ten in tokens per row adds `score_per_decade`.

    Parameters
    ----------
    score_per_decade
        How much a tenfold volume raises the score.
    """

    kind = "unpriced_model"
    stream = "requests"
    cadence = "window"
    features = ("unpriced_requests", "unpriced_tokens", "requests")
    unit = "tokens per minute"
    effect_unit = "tokens per minute"

    def __init__(self, score_per_decade: float = 0.05) -> None:
        self.score_per_decade = score_per_decade
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return {"seen_s": np.zeros(n)}

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        requests = np.nan_to_num(column(x, "unpriced_requests"))
        tokens = np.nan_to_num(column(x, "unpriced_tokens"))
        some = (requests > 0) & (tokens > 0)
        size = OPEN_SCORE + self.score_per_decade * np.log10(np.where(some, np.maximum(tokens, 1.0), 1.0))
        score = np.where(some, np.clip(size, 0.0, 1.0), 0.0)
        rate = tokens * 60.0 / column(x, "window_s")
        unknown = np.full(len(score), np.nan)
        return Judgement(score, rate, np.zeros(len(score)), unknown, rate.copy(), requests)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Nothing to learn: a missing price is never normal."""
        self.state["seen_s"] = self.state["seen_s"] + column(x, "window_s")
