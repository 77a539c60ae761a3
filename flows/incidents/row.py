"""All reports of one row of event time, with lookups made at most once."""

from __future__ import annotations

from collections.abc import Sequence

from flows.incidents import explain
from flows.incidents.kinship import Kinship
from schemas.findings import Findings, Report
from schemas.series import Series


class Row:
    """All reports of one end of a row, with lookups made at most once."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self.reports = reports
        self._where: dict[int, dict[Series, int]] = {}
        self._members: dict[str, dict[Series, explain.Member]] = {}
        self.kinship = Kinship({s: k for r in reports for s, k in r.kin.items()})

    def where(self, report: Report) -> dict[Series, int]:
        """Row number of every series of a report."""
        if id(report) not in self._where:
            self._where[id(report)] = {s: i for i, s in enumerate(report.series)}
        return self._where[id(report)]

    def members(self, cadence: str) -> dict[Series, explain.Member]:
        """Every series' columns, of the reports that hold findings of this cadence."""
        if cadence not in self._members:
            self._members[cadence] = explain.members(
                [r for r in self.reports if any(f.cadence == cadence for f in r.findings)]
            )
        return self._members[cadence]

    def find(self, detector: str, series: Series) -> tuple[Report, Findings, int] | None:
        """The row of a series under a detector."""
        for report in self.reports:
            for f in report.findings:
                if f.detector == detector and series in self.where(report):
                    return report, f, self.where(report)[series]
        return None
