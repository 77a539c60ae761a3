"""The on-call's webhook: what was received, under which identity, and when."""

from __future__ import annotations

import json
import time
from collections import Counter
from types import TracebackType
from typing import Any

from tests.sinks.receiver import Answer, Receiver, Request, receiver

OWN = "pipeline_health"
"""What Tidegauge says about itself follows the clock, so it differs from run to run."""


class OnCall:
    """A receiver on loopback. A context manager."""

    def __init__(self) -> None:
        self._context = receiver(Answer(200, b"{}"))
        self.incidents: list[tuple[float, str, dict[str, Any]]] = []
        """Time of arrival, `webhook-id`, incident."""

    def __enter__(self) -> OnCall:
        self._receiver: Receiver = self._context.__enter__()
        self._receiver.on_request = self._take
        self.url = f"{self._receiver.url}/hook"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, problem, trace)

    def _take(self, request: Request) -> None:
        self.incidents.append((time.monotonic(), request.headers["webhook-id"], json.loads(request.body)))

    def received(self) -> Counter[tuple[str, str]]:
        """How often each incident's state came, for everything but what Tidegauge says about itself."""
        return Counter((i["incident_id"], i["state"]) for _, _, i in self.incidents if i["kind"] != OWN)
