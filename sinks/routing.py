"""Routing: which incidents go to which destinations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from schemas.errors import BadSettings
from schemas.incident import KINDS, SEVERITIES, Incident, Severity


@dataclass(frozen=True, slots=True)
class Route:
    """One rule. Empty lists match everything.

    Parameters
    ----------
    destinations
        Names of the destinations that get what matches.
    kinds
        Kinds of incidents.
    teams
        Values of the dimension `team`; an incident without that dimension matches only an empty list.
    min_severity
        Least severity.
    continue_
        Whether later routes are looked at too.
    """

    destinations: Sequence[str]
    kinds: Sequence[str] = ()
    teams: Sequence[str] = ()
    min_severity: Severity = "info"
    continue_: bool = False

    def matches(self, incident: Incident) -> bool:
        """Whether the rule applies to an incident."""
        return (
            (not self.kinds or incident.kind in self.kinds)
            and (not self.teams or incident.dims.get("team") in self.teams)
            and SEVERITIES.index(incident.severity) >= SEVERITIES.index(self.min_severity)
        )


class Router:
    """Decides for every revision of an incident where it goes.

    The first route that matches decides, unless it says `continue_`. Without routes every destination gets everything.

    Parameters
    ----------
    routes
        In order.
    destination_names
        All destinations there are.

    Raises
    ------
    BadSettings
        A route names a destination, kind or severity that does not exist.
    """

    def __init__(self, routes: Sequence[Route], destination_names: Sequence[str]) -> None:
        self._routes = tuple(routes)
        self.destination_names = tuple(destination_names)
        for i, route in enumerate(self._routes):
            if not route.destinations:
                raise BadSettings(f"routes[{i}].destinations: is empty; name at least one destination")
            _check(f"routes[{i}].destinations", route.destinations, self.destination_names)
            _check(f"routes[{i}].kinds", route.kinds, KINDS)
            _check(f"routes[{i}].min_severity", [route.min_severity], SEVERITIES)
        routed = {name for route in self._routes for name in route.destinations}
        self.unrouted = tuple(name for name in self.destination_names if self._routes and name not in routed)
        """Destinations that no route names."""

    def targets(self, incident: Incident, recording: Collection[str] = ()) -> list[str]:
        """Names of the destinations that get this revision, in the order in which they are configured.

        Parameters
        ----------
        recording
            Destinations that keep a record. They alone get what is not to be notified; and one that no route names
            gets everything, because forgetting it in the routes must not leave holes in the record.
        """
        wanted = set(self.destination_names) if not self._routes else set()
        for route in self._routes:
            if route.matches(incident):
                wanted.update(route.destinations)
                if not route.continue_:
                    break
        wanted.update(name for name in self.unrouted if name in recording)
        return [name for name in self.destination_names if name in wanted and (incident.notify or name in recording)]


def _check(where: str, given: Sequence[str], known: Sequence[str]) -> None:
    for value in given:
        if value not in known:
            raise BadSettings(f"{where}: unknown `{value}`; known: {', '.join(known) or 'none'}")
