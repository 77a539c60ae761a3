"""Cause verdicts and shown error texts of failed requests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flows.causes import classify
from flows.partition.request_rows import DecodedRequests
from schemas.redaction import redact_text

MAX_ERROR_CHARS = 512
"""Characters kept of an error message."""
CACHED_CAUSES = 20_000
CACHED_TEXTS = 2_000

Evidence = tuple[int, str, str, str, str, int, int]


class Failures:
    """Judges failed rows; remembers verdicts and redacted texts, because failures come in bursts of equals.

    What is remembered changes no answer, so it is not saved.
    """

    def __init__(self) -> None:
        self._causes: dict[Evidence, int] = {}
        self._texts: dict[str, str] = {}

    def judge(self, rows: DecodedRequests) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
        """Cause of each row (0 where it did not fail), and the redacted error messages by row."""
        causes = np.zeros(len(rows.failed), dtype=np.uint8)
        failed = np.flatnonzero(rows.failed)
        if not len(failed):
            return causes, {}
        places = failed.tolist()

        def texts(name: str) -> list[str]:
            column = rows.dims[name]
            return [column.values[code] for code in column.codes[failed].tolist()]

        evidence = zip(
            rows.whole["status"][failed].tolist(),
            texts("error_type"),
            texts("error_code"),
            [rows.messages.get(row, "") for row in places],
            texts("provider"),
            rows.whole["ratelimit_remaining_requests"][failed].tolist(),
            rows.whole["ratelimit_remaining_tokens"][failed].tolist(),
            strict=True,
        )
        causes[failed] = [self._cause(each) for each in evidence]
        return causes, {row: self._text(text) for row, text in rows.messages.items()}

    def _cause(self, evidence: Evidence) -> int:
        known = self._causes.get(evidence)
        if known is None:
            if len(self._causes) >= CACHED_CAUSES:
                self._causes.clear()
            known = self._causes[evidence] = int(classify(*evidence))
        return known

    def _text(self, text: str) -> str:
        known = self._texts.get(text)
        if known is None:
            if len(self._texts) >= CACHED_TEXTS:
                self._texts.clear()
            known = self._texts[text] = redact_text(text, MAX_ERROR_CHARS)
        return known
