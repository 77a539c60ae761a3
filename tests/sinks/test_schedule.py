from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.schedule import CRITICAL, Bucket, Waiting, plan, wait_s
from sinks.traits import Traits

NOW = 1_000.0
PEOPLE, RECORD, TRACKER = Traits(batch=10), Traits(recording=True, batch=10), Traits(tracks_state=True, batch=10)


def row(seq: int, incident: str, revision: int, state: str = "open", **changes: object) -> Waiting:
    return Waiting(seq, incident, revision, state, 1, 0, 0.0, NOW)._replace(**changes)


def keys(rows: list[Waiting]) -> list[tuple[str, int]]:
    return [(r.incident_id, r.revision) for r in rows]


def test_only_the_newest_waiting_revision_is_sent_to_people() -> None:
    todo = plan([row(1, "a", 1), row(2, "b", 1), row(3, "a", 3), row(4, "a", 2)], NOW, PEOPLE)
    assert keys(todo.send) == [("a", 3), ("b", 1)]
    assert sorted(keys(todo.superseded)) == [("a", 1), ("a", 2)]


def test_record_gets_every_revision_in_order() -> None:
    rows = [row(1, "a", 1), row(2, "b", 1), row(3, "a", 2, "resolved")]
    assert plan(rows, NOW, RECORD).send == rows


def test_record_waits_for_its_first_row() -> None:
    todo = plan([row(1, "a", 1, next_at=NOW + 5), row(2, "b", 1)], NOW, RECORD)
    assert (todo.send, todo.wake_at) == ([], NOW + 5)


def test_older_than_what_the_receiver_has_is_never_sent() -> None:
    todo = plan([row(1, "a", 2, settled_revision=3)], NOW, PEOPLE)
    assert (todo.send, keys(todo.superseded)) == ([], [("a", 2)])


def test_tracker_needs_no_resolve_of_what_it_never_heard_of() -> None:
    rows = [row(1, "a", 1), row(2, "a", 2, "resolved")]
    assert keys(plan(rows, NOW, TRACKER).unneeded) == [("a", 2)]
    assert plan(rows, NOW, TRACKER).send == []
    assert keys(plan(rows, NOW, PEOPLE).send) == [("a", 2)]


def test_tracker_gets_the_resolve_of_what_it_may_have_heard_of() -> None:
    rows = [row(1, "a", 1, attempts=1), row(2, "a", 2, "resolved", told=True)]
    assert keys(plan(rows, NOW, TRACKER).send) == [("a", 2)]


def test_failed_incident_does_not_hold_up_others() -> None:
    todo = plan([row(1, "a", 1, next_at=NOW + 60), row(2, "b", 1)], NOW, PEOPLE)
    assert keys(todo.send) == [("b", 1)]
    assert plan([row(1, "a", 1, next_at=NOW + 60)], NOW, PEOPLE).wake_at == NOW + 60


def test_most_severe_goes_first() -> None:
    todo = plan([row(1, "a", 1), row(2, "b", 1, urgency=3), row(3, "c", 1)], NOW, PEOPLE, batch=2)
    assert keys(todo.send) == [("b", 1), ("a", 1)]


DIGESTED = Traits(digest_from=5)


@pytest.mark.parametrize(
    ("critical", "others", "first"),
    [(0, 4, 1), (0, 5, 5), (2, 4, 1), (4, 1, 1), (5, 0, 5), (5, 3, 8), (0, 1_000, 1_000)],
)
def test_a_storm_becomes_a_digest_and_the_few_critical_ones_go_alone_before_it(
    critical: int, others: int, first: int
) -> None:
    rows = [row(n, f"o{n}", 1) for n in range(others)]
    rows += [row(others + n, f"c{n}", 1, urgency=CRITICAL) for n in range(critical)]
    todo = plan(rows, NOW, DIGESTED)
    assert len(todo.send) == first
    assert [r.incident_id[0] for r in todo.send[:critical]] == ["c"] * min(critical, first)


def test_a_critical_incident_that_failed_lets_a_digest_pass_and_is_not_hidden_in_it() -> None:
    rows = [row(n, f"o{n}", 1) for n in range(6)] + [row(9, "c", 1, urgency=CRITICAL)]
    passed = plan(rows, NOW, DIGESTED, failed=frozenset("c")).send
    assert {r.incident_id for r in passed} == {f"o{n}" for n in range(6)}
    assert len(plan(rows[2:], NOW, DIGESTED, failed=frozenset("c")).send) == 1, "four are no digest"


def test_after_a_refused_digest_its_incidents_go_one_by_one() -> None:
    assert len(plan([row(n, f"o{n}", 1) for n in range(20)], NOW, DIGESTED, batch=1).send) == 1


rows = st.lists(
    st.builds(
        Waiting,
        st.just(0),
        st.sampled_from("abc"),
        st.integers(1, 6),
        st.sampled_from(["open", "updated", "resolved"]),
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from([0.0, NOW + 1, NOW + 9]),
        st.just(0.0),
        st.just(0),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda r: (r.incident_id, r.revision),
).map(lambda rs: [r._replace(seq=i, settled_revision="abc".index(r.incident_id)) for i, r in enumerate(rs)])


@given(rows, st.sampled_from([PEOPLE, TRACKER, Traits(batch=10, digest_from=2)]))
def test_every_waiting_row_is_sent_dropped_or_waits_with_a_wake_up(waiting: list[Waiting], traits: Traits) -> None:
    todo = plan(waiting, NOW, traits)
    done = [r.seq for r in [*todo.send, *todo.superseded, *todo.unneeded]]
    assert len(done) == len(set(done))
    left = [r for r in waiting if r.seq not in done]
    assert all(r.next_at > NOW for r in left)
    assert len({r.incident_id for r in left}) == len(left)
    if left and not todo.send:
        assert todo.wake_at == min(r.next_at for r in left)
    newest = {i: max(r.revision for r in waiting if r.incident_id == i) for i in {r.incident_id for r in waiting}}
    assert all(r.revision == newest[r.incident_id] for r in todo.send)


def test_waits_double_up_to_a_limit() -> None:
    assert [wait_s(n, 0.999999) for n in (1, 2, 3)] == pytest.approx([1, 2, 4], rel=1e-3)
    assert wait_s(10_000, 0.999999, longest_s=60) == pytest.approx(60, rel=1e-3)


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_waits_are_spread_over_their_upper_half(failures: int, jitter: float) -> None:
    full = wait_s(failures, 0.9999999)
    assert full * 0.49 <= wait_s(failures, jitter) <= full * 1.01


@given(st.floats(0.1, 50), st.integers(1, 10), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_bucket_never_exceeds_rate_and_burst(rate: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = Bucket(rate, burst), 5.0, []
    for gap in gaps:
        now = max(now + gap, bucket.free_at(now + gap))
        assert bucket.free_at(now) - now <= 1e-6
        bucket.take(now)
        taken.append(now)
    for i, start in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= burst + rate * (taken[j] - start) + 1e-3


def test_clock_that_is_set_back_neither_blocks_nor_frees_the_bucket() -> None:
    bucket = Bucket(1.0, 1)
    bucket.take(1_000.0)
    assert bucket.free_at(0.0) == 1.0
    assert bucket.free_at(1.0) == 1.0


def test_a_restart_gives_no_tokens() -> None:
    assert Bucket(1.0, 5, last_at=NOW - 0.25).free_at(NOW) == pytest.approx(NOW + 0.75)
    assert Bucket(1.0, 5, last_at=NOW - 100).free_at(NOW) == NOW
