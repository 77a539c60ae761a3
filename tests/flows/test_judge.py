"""The judge: when findings become an incident, what it says, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from flows.incidents.judge import Judge
from flows.incidents.policy import DEFAULTS, Policy, policies
from flows.incidents.silences import SilenceRule, Silences
from flows.settings import KindPolicy
from schemas.cause import CAUSES, Cause
from schemas.findings import BASELINE, HISTORY, HISTORY_LENGTH, Findings, Progress, Report
from schemas.incident import Incident
from schemas.series import Series
from tests.builders import NOON_NS, SECOND_NS

MINUTE_NS = 60 * SECOND_NS


def s(**dims: str) -> Series:
    return Series("requests", tuple(dims), tuple(dims.values()))


TOTAL, TEAM, LEAF, OTHER = s(), s(team="a"), s(team="a", model="m"), s(team="b")


def columns(
    requests: float, cost_usd: float, *, tokens: float = 0, cached: float = 0, errors: float = 0
) -> list[float]:
    values = {
        "requests": requests,
        "errors": errors,
        "input_tokens": tokens or requests * 1000,
        "output_tokens": requests * 100,
        "cache_read_tokens": cached,
        "cost_pico": cost_usd * 1e12,
    }
    return [values.get(name, 0.0) for name in BASELINE]


def report(
    minute: int,
    scores: Mapping[Series, float],
    *,
    kind: str = "cost_spike",
    shard: str = "0",
    current: Mapping[Series, list[float]] | None = None,
    usual: Mapping[Series, list[float]] | None = None,
    age_s: float = 1e6,
    effect: float = 100.0,
    volume: float = 1e6,
    impact: float = 50.0,
    causes: Mapping[Cause, int] | None = None,
) -> Report:
    series = list(scores)
    n = len(series)
    full = np.full(n, 1.0)
    errors = np.zeros((n, len(CAUSES)), np.int64)
    for cause, count in (causes or {}).items():
        errors[:, CAUSES.index(cause)] = count
    default = columns(100, 1.0)
    return Report(
        shard=shard,
        start_ns=NOON_NS + minute * MINUTE_NS,
        end_ns=NOON_NS + (minute + 1) * MINUTE_NS,
        series=series,
        age_s=full * age_s,
        current=np.array([(current or {}).get(x, default) for x in series], np.int64).reshape(n, len(BASELINE)),
        usual=np.array([(usual or {}).get(x, default) for x in series], np.float64).reshape(n, len(BASELINE)),
        errors_by_cause=errors,
        findings=[
            Findings(
                kind=kind,
                detector=kind,
                unit="USD per hour",
                effect_unit="USD per hour",
                cadence="interval",
                score=np.array(list(scores.values())),
                observed=full * 60,
                expected=full * 10,
                impact_usd_per_hour=full * impact,
                effect=full * effect,
                volume=full * volume,
            )
        ],
        history={
            i: np.arange(len(HISTORY) * HISTORY_LENGTH, dtype=np.float32).reshape(len(HISTORY), -1) for i in range(n)
        },
    )


def judge(**changes: Any) -> Judge:
    given: dict[str, Any] = {"shards": ["0"], "policies": policies({})}
    return Judge(**{**given, **changes})


def play(j: Judge, reports: Sequence[Report]) -> list[Incident]:
    return [i for r in reports for i in j.on_progress(Progress(r.shard, r.end_ns, [r]))]


def run(scores: Sequence[float], **kwargs: Any) -> list[Incident]:
    return play(judge(), [report(m, {TEAM: score}, **kwargs) for m, score in enumerate(scores)])


def test_two_strange_rows_of_three_open_an_incident_and_five_quiet_ones_resolve_it() -> None:
    out = run([0.0, 0.9, 0.1, 0.9, *[0.0] * 5])
    assert [(i.state, i.revision) for i in out] == [("open", 1), ("resolved", 2)]
    assert out[0].opened_at == "2026-01-01T12:01:00Z"
    assert out[0].detected_at == "2026-01-01T12:04:00Z"
    assert out[1].resolved_at == "2026-01-01T12:04:00Z"


def test_the_end_is_told_even_if_the_last_revision_was_only_recorded() -> None:
    j = judge()
    rows = [report(0, {TEAM: 0.9}, impact=40.0), report(1, {TEAM: 0.9}, impact=40.0)]
    rows.append(report(2, {TEAM: 0.9}, impact=99.0))  # grown, but not worse
    out = play(j, [*rows, *(report(m, {TEAM: 0.0}) for m in range(3, 8))])
    assert [(i.state, i.notify) for i in out] == [("open", True), ("updated", False), ("resolved", True)]


def test_the_end_of_what_was_never_told_is_not_told() -> None:
    quiet = Silences([SilenceRule({"kind": "cost_spike"}, None, None)])
    out = play(judge(silences=quiet), [report(m, {TEAM: score}) for m, score in enumerate([0.9, 0.9, *[0.0] * 5])])
    assert [(i.state, i.notify) for i in out] == [("open", False), ("resolved", False)]


def test_one_strange_row_opens_nothing() -> None:
    assert run([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]) == []


def test_scores_between_closing_and_opening_keep_an_incident_open() -> None:
    out = run([0.9, 0.9, *[0.3] * 20])
    assert [i.state for i in out] == ["open"]


@pytest.mark.parametrize(
    "small", [{"effect": 0.0, "kind": "error_burst"}, {"impact": 0.1}, {"volume": 1.0}, {"age_s": 60.0}]
)
def test_small_young_or_cheap_changes_open_nothing(small: dict[str, Any]) -> None:
    assert run([0.9] * 6, **small) == []


def test_an_unknown_impact_does_not_keep_an_incident_from_opening() -> None:
    assert run([0.9] * 2, kind="gpu_idle", impact=float("nan"))[0].impact_usd_per_hour is None


def test_kinds_that_need_no_normal_open_on_a_young_series() -> None:
    assert run([0.9] * 2, kind="unpriced_model", age_s=10.0)[0].state == "open"


def test_the_same_input_gives_the_same_incident_id() -> None:
    assert run([0.9, 0.9])[0].incident_id == run([0.9, 0.9])[0].incident_id
    assert run([0.9, 0.9])[0].incident_id != run([0.0, 0.9, 0.9])[0].incident_id


def test_team_model_and_total_become_one_incident_named_by_the_most_specific() -> None:
    scores = {TOTAL: 0.9, TEAM: 0.9, LEAF: 0.9, OTHER: 0.0}
    now = {TOTAL: columns(300, 9.0), TEAM: columns(200, 8.0), LEAF: columns(150, 7.8), OTHER: columns(100, 1.0)}
    out = play(judge(), [report(m, scores, current=now) for m in range(3)])
    assert [i.state for i in out] == ["open"]
    assert out[0].dims == {"team": "a", "model": "m"}


def test_a_broad_change_is_named_after_a_quiet_member_that_carries_it() -> None:
    scores = {TEAM: 0.9, LEAF: 0.0}
    now = {TEAM: columns(200, 8.0), LEAF: columns(150, 7.8)}
    out = play(judge(), [report(m, scores, current=now) for m in range(2)])
    assert out[0].dims == {"team": "a", "model": "m"}


def test_a_series_that_follows_joins_the_open_incident() -> None:
    first = [report(m, {TEAM: 0.9, LEAF: 0.0}) for m in range(2)]
    later = [report(m, {TEAM: 0.9, LEAF: 0.9}) for m in range(2, 6)]
    assert len([i for i in play(judge(), first + later) if i.state == "open"]) == 1


def test_two_causes_are_two_incidents() -> None:
    out = play(judge(), [report(m, {TEAM: 0.9, OTHER: 0.9}) for m in range(2)])
    assert sorted(i.dims["team"] for i in out) == ["a", "b"]


def test_an_incident_resolves_only_when_all_its_series_are_quiet() -> None:
    both = [report(m, {TEAM: 0.9, LEAF: 0.9}) for m in range(2)]
    one = [report(m, {TEAM: 0.0, LEAF: 0.9}) for m in range(2, 12)]
    none = [report(m, {TEAM: 0.0, LEAF: 0.0}) for m in range(12, 17)]
    out = play(judge(), both + one + none)
    assert [i.state for i in out] == ["open", "resolved"]
    assert out[1].resolved_at == "2026-01-01T12:12:00Z"


def test_factors_add_up_and_name_the_one_that_moved() -> None:
    usual = {TEAM: columns(100, 1.0), LEAF: columns(100, 1.0)}
    now = {TEAM: columns(100, 5.0, tokens=500_000), LEAF: columns(100, 5.0, tokens=500_000)}
    out = play(judge(), [report(m, {TEAM: 0.9, LEAF: 0.9}, current=now, usual=usual) for m in range(2)])
    shares = {f.name: f.share for f in out[0].factors}
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
    assert out[0].factors[0].name == "tokens_per_request"
    assert shares["requests"] == 0.0
    assert out[0].cause == "tokens_per_request"


def test_contributors_name_the_member_with_its_share() -> None:
    leafs = {s(team="a", model=m): (c, 1.0) for m, c in (("m", 4.0), ("n", 3.0))}
    now = {TEAM: columns(100, 7.0), **{k: columns(50, c) for k, (c, _) in leafs.items()}}
    usual = {TEAM: columns(100, 2.0), **{k: columns(50, u) for k, (_, u) in leafs.items()}}
    scores = {TEAM: 0.9, **dict.fromkeys(leafs, 0.0)}
    out = play(judge(), [report(m, scores, current=now, usual=usual) for m in range(2)])
    assert out[0].dims == {"team": "a"}
    assert [(c.dims["model"], c.share) for c in out[0].contributors] == [("m", 0.6), ("n", 0.4)]


def test_an_error_burst_says_its_cause_and_whether_retrying_helps() -> None:
    causes = {Cause.VENDOR_CAPACITY: 90, Cause.TIMEOUT: 10}
    out = run([0.9, 0.9], kind="error_burst", causes=causes, impact=float("nan"))
    assert (out[0].cause, out[0].retry_helps) == ("vendor_capacity", True)
    assert "180 vendor_capacity, 20 timeout" in out[0].summary
    assert out[0].impact_usd_per_hour is None


def test_growth_across_many_keys_is_information_only() -> None:
    keys = [s(team="a", api_key_id=f"k{i}") for i in range(4)]
    now = {TEAM: columns(400, 4.0), **{k: columns(100, 1.0) for k in keys}}
    usual = {TEAM: columns(100, 1.0), **{k: columns(25, 0.25) for k in keys}}
    scores = {TEAM: 0.9, **dict.fromkeys(keys, 0.9)}
    out = play(judge(), [report(m, scores, current=now, usual=usual, impact=5000.0) for m in range(2)])
    assert out[0].severity == "info"
    assert "growth" in out[0].summary


def test_one_key_that_runs_away_is_not_growth() -> None:
    keys = [s(team="a", api_key_id=f"k{i}") for i in range(4)]
    now = {TEAM: columns(400, 4.0), **{k: columns(25, 0.25) for k in keys}, keys[0]: columns(325, 3.25)}
    usual = {TEAM: columns(100, 1.0), **{k: columns(25, 0.25) for k in keys}}
    scores = {TEAM: 0.9, **dict.fromkeys(keys, 0.0), keys[0]: 0.9}
    out = play(judge(), [report(m, scores, current=now, usual=usual, impact=5000.0) for m in range(2)])
    assert out[0].severity == "critical"
    assert out[0].dims == {"team": "a", "api_key_id": "k0"}


def test_severity_follows_impact_and_a_worse_one_is_told() -> None:
    out = play(judge(), [report(m, {TEAM: 0.9}, impact=50.0 if m < 4 else 2000.0) for m in range(8)])
    assert [(i.state, i.severity, i.notify) for i in out] == [("open", "warning", True), ("updated", "critical", True)]


def test_a_growing_impact_is_recorded_but_not_sent() -> None:
    out = play(judge(), [report(m, {TEAM: 0.9}, impact=10.0 if m < 4 else 25.0) for m in range(8)])
    assert [(i.state, i.notify) for i in out] == [("open", True), ("updated", False)]


def test_a_reminder_comes_when_it_is_due() -> None:
    out = play(judge(reminder_s=600.0), [report(m, {TEAM: 0.9}) for m in range(25)])
    assert [i.state for i in out] == ["open", "updated", "updated"]
    assert all(i.notify for i in out)


def test_silenced_incidents_are_recorded_but_not_sent() -> None:
    silences = Silences([SilenceRule({"kind": "cost_*", "team": "a"}, ends_ns=NOON_NS + 10 * MINUTE_NS)])
    quiet = play(judge(silences=silences), [report(m, {TEAM: 0.9}) for m in range(2)])
    over = play(judge(silences=silences), [report(m, {TEAM: 0.9}) for m in range(20, 22)])
    assert [i.notify for i in quiet] == [False]
    assert [i.notify for i in over] == [True]


def test_a_symptom_beside_its_cause_is_not_sent() -> None:
    j = judge()
    rows = [report(m, {TEAM: 0.9}, kind="error_burst") for m in range(2)]
    slo = report(2, {TEAM: 0.9}, kind="slo_burn")
    out = play(j, [*rows, slo])
    assert [(i.kind, i.notify) for i in out] == [("error_burst", True), ("slo_burn", False)]
    assert out[1].related == [out[0].incident_id]


def test_what_was_doubted_while_it_lasted_is_not_told_when_it_is_over() -> None:
    old, new = s(team="a", model="old"), s(team="a", model="new")
    shifted = {
        "current": {old: columns(0, 0.0), new: columns(100, 1.0)},
        "usual": {old: columns(100, 1.0), new: columns(0, 0.0)},
    }
    during = [report(m, {old: 0.0, new: 0.9}, **shifted) for m in range(6)]  # type: ignore[arg-type]
    after = [report(m, {old: 0.0, new: 0.0}) for m in range(6, 12)]
    assert play(judge(), during + after) == []


def test_no_more_than_the_allowed_number_of_incidents_is_open() -> None:
    j = judge(max_open=3)
    many = {s(team=f"t{i}"): 0.9 for i in range(10)}
    out = play(j, [report(m, many) for m in range(3)])
    assert len(out) == 3
    assert j.suppressed > 0


def test_a_row_is_judged_when_every_shard_has_reported_it() -> None:
    j = judge(shards=["0", "1"])
    out = play(j, [report(m, {TEAM: 0.9}) for m in range(3)])
    assert out == []
    late = j.on_progress(Progress("1", NOON_NS + 2 * MINUTE_NS, []))
    assert [i.state for i in late] == ["open"]


@pytest.mark.parametrize("order", [["0", "1"], ["1", "0"]])
def test_the_order_in_which_shards_report_does_not_matter(order: list[str]) -> None:
    rows = {
        "0": [report(m, {TEAM: 0.9}, shard="0") for m in range(4)],
        "1": [report(m, {LEAF: 0.9, OTHER: 0.9}, shard="1") for m in range(4)],
    }
    out = play(judge(shards=["0", "1"]), [r for name in order for r in rows[name]])
    again = play(judge(shards=["0", "1"]), [rows[n][m] for m in range(4) for n in ("0", "1")])
    assert out == again
    assert len(out) == 2


def test_a_restart_at_any_row_opens_no_second_incident() -> None:
    scores = [0.9, 0.9, 0.3, 0.9, *[0.0] * 6, 0.9, 0.9]
    rows = [report(m, {TEAM: x, LEAF: x}) for m, x in enumerate(scores)]
    undisturbed = play(judge(), rows)
    for at in range(len(rows)):
        j = judge()
        out = play(j, rows[:at])
        out += play(judge(saved=j.snapshot()), rows[at:])
        assert out == undisturbed


def test_an_incident_survives_json() -> None:
    out = run([0.9, 0.9])[0]
    assert msgspec.json.decode(msgspec.json.encode(out), type=Incident) == out
    assert len(out.sparkline) == HISTORY_LENGTH


def test_links_lead_to_the_series_at_the_right_time() -> None:
    j = judge(dashboard_url="https://grafana.example/", runbook_url="https://docs.example/runbooks")
    out = play(j, [report(m, {TEAM: 0.9}) for m in range(2)])[0]
    assert out.links["dashboard"].startswith("https://grafana.example/d/tidegauge-attribution?from=")
    assert "var-team=a" in out.links["dashboard"]
    assert out.links["runbook"] == "https://docs.example/runbooks/cost_spike.md"


def test_operators_can_change_a_kinds_policy() -> None:
    changed = policies({"cost_spike": KindPolicy(open_score=0.95, severity="critical")})["cost_spike"]
    assert (changed.open_score, changed.fixed_severity) == (0.95, "critical")
    assert changed.min_volume == DEFAULTS["cost_spike"].min_volume


def test_closing_never_needs_more_than_opening() -> None:
    changed = policies({"cost_spike": KindPolicy(open_score=0.1)})["cost_spike"]
    assert changed.close_score <= changed.open_score
    assert isinstance(changed, Policy)


def gpu_report(minute: int, scores: Mapping[Series, float], kin: Mapping[Series, dict[str, str]]) -> Report:
    out = report(minute, scores, kind="gpu_fault", shard="gpus")
    out.current, out.usual = np.zeros((0, len(BASELINE)), np.int64), np.zeros((0, len(BASELINE)))
    out.kin = dict(kin)
    return out


def test_faults_in_two_clusters_are_two_incidents_although_a_roll_up_holds_both() -> None:
    gpus = [Series("gpus", ("cluster", "node", "gpu", "mig_id"), (c, f"n-{c}", "0", "")) for c in ("c1", "c2", "c3")]
    kin = {x: {"cluster": x.values[0], "node": x.values[1], "gpu": "0", "gpu_model": "H100"} for x in gpus}
    rollup = Series("gpus", ("gpu_model",), ("H100",))
    rows = [
        gpu_report(m, {gpus[0]: 0.9 if m < 2 else 0.0, gpus[1]: 0.9 if m >= 30 else 0.0, rollup: 0.9}, kin)
        for m in range(120)
    ]
    out = play(judge(shards=["gpus"]), rows)
    assert [(i.state, i.dims["cluster"]) for i in out] == [("open", "c1"), ("open", "c2"), ("resolved", "c1")]
