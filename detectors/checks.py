"""What every detector must hold: functions that raise `AssertionError` when it does not.

`tests/detectors/test_contract.py` runs every check over every entry of `detectors.DETECTORS`; a detector of your own
is checked by `for check in CHECKS: check(YourDetector)`. River's own estimator checks that apply run beside ours.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from river.checks import common

from detectors.base import Detector, FloatArray, Judgement
from detectors.check_streams import ROW_S, QuietStream, Row, changed

Check = Callable[[type[Detector]], None]

QUIET_ROWS = 150
CHANGED_ROWS = 60
STATED_SCORE = 0.3
"""Level at which false alarms are counted: one row in a thousand."""

MAX_BYTES_PER_SERIES = 4_096


def make(cls: type[Detector], n: int = 1) -> Detector:
    """A detector for checking, with the first of River's `_unit_test_params`."""
    detector = cls(**next(iter(cls._unit_test_params())))
    detector.resize(n)
    return detector


def stream(detector: Detector, n: int, seed: int = 1, row_s: float | None = None) -> QuietStream:
    """Healthy series at the detector's cadence."""
    return QuietStream(n, seed, row_s or ROW_S[detector.cadence])


def features_of(detector: Detector, row: Row) -> Row:
    """What the detector may see of a row."""
    return {name: row[name] for name in (*detector.features, "window_s")}


def run(detector: Detector, rows: QuietStream, count: int) -> FloatArray:
    """Score, then learn, `count` rows; scores of shape (count, n)."""
    scores = []
    for _ in range(count):
        x = features_of(detector, rows.row())
        scores.append(detector.score_many(x).score)
        detector.learn_many(x)
    return np.array(scores)


def same(a: Any, b: Any) -> bool:
    """Whether two states hold the same numbers, bit for bit."""
    return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)


def _equal(a: Any, b: Any) -> bool:
    if a.dtype == object:
        # A round trip first: copies share other strings than originals, which pickle writes differently.
        return [pickle.dumps(pickle.loads(pickle.dumps(m))) for m in a] == [
            pickle.dumps(pickle.loads(pickle.dumps(m))) for m in b
        ]
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _assert_sound(judgement: Judgement, n: int) -> None:
    score = judgement.score
    assert score.shape == (n,), "one score per slot"
    assert np.isfinite(score).all(), "scores are finite"
    assert ((score >= 0) & (score <= 1)).all(), "scores lie in [0, 1]"
    for name in ("observed", "expected", "impact_usd_per_hour", "effect", "volume"):
        assert getattr(judgement, name).shape == (n,), f"{name} has one entry per slot"
    impact = judgement.impact_usd_per_hour
    assert not (impact < 0).any(), "impact is never negative"
    assert judgement.detail is None or len(judgement.detail) == n, "detail has one entry per slot"


def declares_itself(cls: type[Detector]) -> None:
    """Kind, stream, cadence, units and features are those of the contracts."""
    from schemas import gpu_window, request_window
    from schemas.incident import KINDS

    detector = make(cls)
    assert detector.kind in KINDS
    assert detector.unit
    assert detector.effect_unit
    assert detector.stream in ("requests", "gpus", "pipeline")
    assert detector.cadence in ROW_S
    if detector.stream == "requests":
        quantiles = {f"{s}_p{round(100 * q)}" for s in request_window.SKETCHES for q in request_window.QUANTILES}
        known = set(request_window.SUMS) | quantiles
    elif detector.stream == "pipeline":
        known = {"delay_s", "lag_messages", "spool_share", "outbox_age_s"}
        known |= {"given_up", "lost_messages", "unread_partitions"}
    else:
        known = set(gpu_window.SUMS) | {f"{name}_max" for name in gpu_window.MAXIMA}
    assert set(detector.features) <= known, set(detector.features) - known


def scores_lie_on_the_scale(cls: type[Detector]) -> None:
    """Scores are finite and in [0, 1], on quiet and on changed rows."""
    detector = make(cls, 5)
    rows = stream(detector, 5)
    for i in range(QUIET_ROWS):
        row = rows.row()
        x = features_of(detector, changed(detector.kind, row, i / 6) if i > QUIET_ROWS // 2 else row)
        _assert_sound(detector.score_many(x), 5)
        detector.learn_many(x)


def score_is_pure(cls: type[Detector]) -> None:
    """Scoring changes neither the detector nor the row, and gives the same answer twice."""
    detector = make(cls, 4)
    rows = stream(detector, 4)
    run(detector, rows, 40)
    x = features_of(detector, changed(detector.kind, rows.row(), 10))
    state, before = copy.deepcopy(detector.state), copy.deepcopy(x)
    first, second = detector.score_many(x), detector.score_many(x)
    assert same(detector.state, state), "score_many changed the state"
    assert same(x, before), "score_many changed its input"
    assert np.array_equal(first.score, second.score)
    assert first.detail == second.detail


def learn_returns_nothing(cls: type[Detector]) -> None:
    """Learning returns None, changes something, and leaves its input alone."""
    detector = make(cls, 3)
    rows = stream(detector, 3)
    state = copy.deepcopy(detector.state)
    x = features_of(detector, rows.row())
    before = copy.deepcopy(x)
    result: Any = detector.learn_many(x)
    assert result is None
    assert same(x, before), "learn_many changed its input"
    assert not same(detector.state, state), "learn_many learned nothing"


def new_series_score_zero(cls: type[Detector]) -> None:
    """Nothing is known of a new series, so a healthy row scores 0; learned detectors say nothing at all."""
    detector = make(cls, 6)
    rows = stream(detector, 6)
    row = rows.row()
    assert (detector.score_many(features_of(detector, row)).score == 0).all()
    if any(name.startswith("warm_up") for name in inspect.signature(cls).parameters):
        x = features_of(detector, changed(detector.kind, row, 30))
        # Rules about a stated limit (a full quota) need no past; everything learned does.
        if "full" not in inspect.signature(cls).parameters:
            assert (detector.score_many(x).score == 0).all()


def missing_rows_are_survived(cls: type[Detector]) -> None:
    """Rows that were not measured score 0 and poison nothing."""
    detector = make(cls, 4)
    rows = stream(detector, 4)
    run(detector, rows, QUIET_ROWS // 2)
    x = features_of(detector, rows.row())
    gone = {name: np.full(4, np.nan) if name != "window_s" else values for name, values in x.items()}
    unknown = {name: np.isnan(v) for name, v in detector.state.items() if v.dtype.kind == "f"}
    for _ in range(3):
        judgement = detector.score_many(gone)
        _assert_sound(judgement, 4)
        assert (judgement.score == 0).all(), "a row that was not measured scored"
        detector.learn_many(gone)
    for name in detector.features:  # each feature missing alone
        part = x | {name: np.full(4, np.nan)}
        _assert_sound(detector.score_many(part), 4)
        detector.learn_many(part)
    for name, was in unknown.items():
        assert np.array_equal(np.isnan(detector.state[name]), was), f"NaN got into state {name!r}"
    _assert_sound(detector.score_many(x), 4)
    assert make(cls).score_one({}) == 0.0


def constant_series_stay_quiet(cls: type[Detector]) -> None:
    """A series that never changes is never strange."""
    detector = make(cls, 3)
    x = features_of(detector, stream(detector, 3).row())
    for _ in range(QUIET_ROWS):
        assert (detector.score_many(x).score < STATED_SCORE).all(), "a constant series scored"
        detector.learn_many(x)


def empty_series_stay_quiet(cls: type[Detector]) -> None:
    """A series of which only zeros are known scores 0."""
    detector = make(cls, 3)
    x = {name: np.zeros(3) for name in detector.features} | {"window_s": np.full(3, ROW_S[detector.cadence])}
    for _ in range(QUIET_ROWS):
        assert (detector.score_many(x).score == 0).all(), "a row of zeros scored"
        detector.learn_many(x)


def huge_values_are_survived(cls: type[Detector]) -> None:
    """The largest amounts that fit the columns break nothing, and are forgotten in time."""
    detector = make(cls, 3)
    rows = stream(detector, 3)
    run(detector, rows, 40)
    for value in (9.2e18, 1e12, 1.0):
        x = {name: np.full(3, value) for name in detector.features} | {"window_s": np.full(3, ROW_S[detector.cadence])}
        _assert_sound(detector.score_many(x), 3)
        detector.learn_many(x)
    for name, values in detector.state.items():
        assert values.dtype.kind != "f" or not np.isinf(values).any(), f"infinity in state {name!r}"
    _assert_sound(detector.score_many(features_of(detector, rows.row())), 3)


def any_row_length_works(cls: type[Detector]) -> None:
    """Parameters are in seconds: rows of 5 s, 30 s and 5 min are judged too, even mixed."""
    detector = make(cls, 3)
    for seed, row_s in enumerate((5.0, 30.0, 300.0)):
        scores = run(detector, stream(detector, 3, seed, row_s), 30)
        assert np.isfinite(scores).all()


def restart_changes_nothing(cls: type[Detector]) -> None:
    """A pickled detector goes on with the same numbers."""
    detector = make(cls, 3)
    run(detector, stream(detector, 3), 40)
    twin = pickle.loads(pickle.dumps(detector))
    ours, theirs = run(detector, stream(detector, 3, 2), 20), run(twin, stream(twin, 3, 2), 20)
    assert np.array_equal(ours, theirs)
    assert same(detector.state, twin.state)


def equal_input_gives_equal_output(cls: type[Detector]) -> None:
    """Two detectors with the same parameters agree bit for bit: no unseeded randomness, no order of a set."""
    one, two = make(cls, 3), make(cls, 3)
    row = changed(one.kind, stream(one, 3).row(), 5)
    a, b = run(one, stream(one, 3), 60), run(two, stream(two, 3), 60)
    assert np.array_equal(a, b)
    assert same(one.state, two.state)
    x = features_of(one, row)
    assert np.array_equal(one.score_many(x).score, two.score_many(x).score)


def bank_equals_singles(cls: type[Detector]) -> None:
    """A bank of n gives the numbers of n single River estimators, bit for bit."""
    n = 7
    bank, singles = make(cls, n), [make(cls) for _ in range(n)]
    rows = stream(bank, n)
    for i in range(90):
        row = rows.row()
        x = features_of(bank, changed(bank.kind, row, i / 6) if i > 80 else row)
        scores = bank.score_many(x).score
        bank.learn_many(x)
        for slot, single in enumerate(singles):
            one = {name: float(values[slot]) for name, values in x.items()}
            assert single.score_one(one) == scores[slot], f"slot {slot}, row {i}"
            single.learn_one(one)
    for slot, single in enumerate(singles):
        assert same(single.state, {name: values[slot : slot + 1] for name, values in bank.state.items()})


def slots_come_and_go(cls: type[Detector]) -> None:
    """Growing keeps what is known, new and forgotten slots know nothing, shrinking drops the surplus."""
    detector = make(cls, 3)
    run(detector, stream(detector, 3), 40)
    known = copy.deepcopy(detector.state)
    detector.resize(5)
    fresh = make(cls).state
    assert len(detector) == 5
    for name, values in detector.state.items():
        assert _equal(values[:3], known[name])
        assert _equal(values[3:4], fresh[name])
    detector.forget(np.array([1]))
    for name, values in detector.state.items():
        assert _equal(values[1:2], fresh[name])
        assert _equal(values[2:3], known[name][2:3])
    detector.resize(2)
    assert len(detector) == 2
    detector.resize(0)
    assert len(detector) == 0
    empty = {name: np.zeros(0) for name in (*detector.features, "window_s")}
    assert len(detector.score_many(empty).score) == 0
    detector.learn_many(empty)


def freezing_ends(cls: type[Detector]) -> None:
    """A frozen slot still judges, and its freeze runs out."""
    detector = make(cls, 2)
    rows = stream(detector, 2)
    run(detector, rows, 60)
    for _ in range(20):
        row = rows.row()
        row["window_s"] = np.full(2, 3_600.0)
        x = features_of(detector, row)
        _assert_sound(detector.score_many(x), 2)
        detector.learn_many(x, np.array([True, False]))
    if "frozen_s" in detector.state:
        assert (detector.state["frozen_s"] <= 86_400).all(), "time in the freeze grows without bound"


def state_is_small(cls: type[Detector]) -> None:
    """State is bounded, and small enough for tens of thousands of series."""
    detector = make(cls, 64)
    run(detector, stream(detector, 64), 30)
    size = len(pickle.dumps(detector.state)) / 64
    assert size <= MAX_BYTES_PER_SERIES, f"{size:.0f} bytes per series"


def false_alarms_keep_the_statement(cls: type[Detector]) -> None:
    """On quiet series, rows at or above score s are no more frequent than twice 10^(-10 s) (and chance)."""
    detector = make(cls)
    n = 16 if any(v.dtype == object for v in detector.state.values()) else 160  # objects per series are slow
    detector.resize(n)
    scores = run(detector, stream(detector, n, seed=7), 320)[120:]
    stated = 10 ** (-10 * STATED_SCORE)
    alarms, expected = int((scores >= STATED_SCORE).sum()), stated * scores.size
    assert alarms <= 2 * expected + 3 * np.sqrt(expected), (
        f"{alarms} of {scores.size} quiet rows score {STATED_SCORE} or more, stated are {expected:.1f}"
    )


def beats_chance(cls: type[Detector]) -> None:
    """Rows of its own kind of incident outrank quiet rows (area under the curve at least 0.9)."""
    n = 12
    detector = make(cls, n)
    rows = stream(detector, n, seed=3)
    quiet = run(detector, rows, QUIET_ROWS + 20)[-60:]
    strange = []
    for i in range(CHANGED_ROWS):
        x = features_of(detector, changed(detector.kind, rows.row(), i * rows.window_s / 60))
        strange.append(detector.score_many(x).score)
        detector.learn_many(x)
    # A detector may need its time to be sure, and may get used to a lasting change: its best quarter counts.
    best = np.sort(np.array(strange), axis=0)[-CHANGED_ROWS // 4 :]
    area = float(np.mean(best.ravel()[:, None] > quiet.ravel()) + 0.5 * np.mean(best.ravel()[:, None] == quiet.ravel()))
    assert area >= 0.9, f"area under the curve {area:.2f}"


def river_accepts_it(cls: type[Detector]) -> None:
    """River's own estimator checks that need no data set of River's."""
    for check in (
        common.check_repr, common.check_str, common.check_tags, common.check_clone_same_class,
        common.check_clone_is_idempotent, common.check_init_has_default_params_for_tests,
        common.check_init_default_params_are_not_mutable, common.check_doc,
        common.check_clone_changes_memory_addresses, common.check_mutate_can_be_idempotent,
        common.check_pickling_supports_roundtrip, common.check_repr_roundtrips_clone,
        common.check_clone_with_new_params_applies, common.check_get_params_matches_signature,
    ):  # fmt: skip
        check(make(cls))
    detector = make(cls)
    rows = stream(detector, 1)
    data = [({k: float(v[0]) for k, v in features_of(detector, rows.row()).items()}, None) for _ in range(40)]
    for check in (
        common.check_learn_one, common.check_pickling, common.check_shuffle_features_no_impact,
        common.check_emerging_features, common.check_disappearing_features,
        common.check_radically_disappearing_features, common.check_predict_one_pure,
        common.check_predict_one_before_any_learn, common.check_no_state_aliasing_with_input,
        common.check_clone_is_independent, common.check_bounded_memory_growth,
    ):  # fmt: skip
        check(make(cls), data)


CHECKS: tuple[Check, ...] = (
    declares_itself, scores_lie_on_the_scale, score_is_pure, learn_returns_nothing, new_series_score_zero,
    missing_rows_are_survived, constant_series_stay_quiet, empty_series_stay_quiet, huge_values_are_survived,
    any_row_length_works, restart_changes_nothing, equal_input_gives_equal_output, bank_equals_singles,
    slots_come_and_go, freezing_ends, state_is_small, false_alarms_keep_the_statement, beats_chance, river_accepts_it,
)  # fmt: skip
"""Every check, in the order of what to look at first."""
