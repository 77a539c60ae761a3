from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import BadSettings
from sinks.routing import Route, Router
from tests.sinks.incidents import incident

NAMES = ["slack", "pager", "kafka"]


def targets(routes: list[Route], recording: tuple[str, ...] = (), **changes: Any) -> list[str]:
    return Router(routes, NAMES).targets(incident(**changes), recording)


def test_without_routes_everything_goes_everywhere() -> None:
    assert targets([]) == NAMES


def test_first_match_decides_unless_it_continues() -> None:
    first, second = Route(["pager"], kinds=["cost_spike"]), Route(["slack"])
    assert targets([first, second]) == ["pager"]
    assert targets([Route(["pager"], kinds=["cost_spike"], continue_=True), second]) == ["slack", "pager"]
    assert targets([first, second], kind="gpu_idle") == ["slack"]


def test_all_conditions_of_a_route_must_hold() -> None:
    route = Route(["pager"], kinds=["cost_spike"], teams=["search"], min_severity="error")
    assert targets([route]) == ["pager"]
    assert targets([route], kind="gpu_idle") == []
    assert targets([route], dims={"team": "ads"}) == []
    assert targets([route], dims={}) == []
    assert targets([route], severity="warning") == []
    assert targets([route], severity="critical") == ["pager"]


def test_what_is_not_to_be_notified_goes_only_into_the_record() -> None:
    assert targets([], ("kafka",), notify=False) == ["kafka"]
    assert targets([Route(["slack", "kafka"])], ("kafka",), notify=False) == ["kafka"]
    assert targets([], notify=False) == []


def test_record_that_no_route_names_gets_everything() -> None:
    assert targets([Route(["pager"])], ("kafka",)) == ["pager", "kafka"]
    assert targets([Route(["pager"]), Route(["kafka"], min_severity="critical")], ("kafka",)) == ["pager"]


def test_destinations_without_a_route_are_listed() -> None:
    assert Router([Route(["pager"])], NAMES).unrouted == ("slack", "kafka")
    assert Router([], NAMES).unrouted == ()


@pytest.mark.parametrize(
    "route",
    [Route(["smoke"]), Route(["slack"], kinds=["fire"]), Route(["slack"], min_severity="dire"), Route([])],  # type: ignore[arg-type]
)
def test_routes_that_lead_nowhere_stop_the_start(route: Route) -> None:
    with pytest.raises(BadSettings, match=r"routes\[1\]"):
        Router([Route(["slack"]), route], NAMES)
