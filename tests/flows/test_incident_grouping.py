"""One cause, one incident, at the level that names the cause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.incidents.grouping import groups, naming, related
from flows.incidents.kinship import Kinship
from schemas.series import Series


def s(**dims: str) -> Series:
    return Series("requests", tuple(dims), tuple(dims.values()))


TOTAL, TEAM, LEAF = s(), s(team="a"), s(team="a", model="m")


def test_team_model_and_total_are_one_group() -> None:
    assert groups([LEAF, TOTAL, TEAM]) == [[TOTAL, TEAM, LEAF]]


def test_two_teams_are_two_groups_and_the_total_joins_the_larger() -> None:
    other = s(team="b")
    assert sorted(groups([TOTAL, TEAM, LEAF, other]), key=len) == [[other], [TOTAL, TEAM, LEAF]]


def test_a_provider_outage_seen_by_several_teams_is_one_group() -> None:
    outage = s(provider="p", model="m")
    seen = [outage, s(team="a", model="m"), s(team="b", model="m")]
    assert len(groups(seen)) == 1


def test_streams_are_never_mixed() -> None:
    gpu = Series("gpus", ("team",), ("a",))
    assert not related(TEAM, gpu)
    assert len(groups([TEAM, gpu])) == 2


def test_the_most_specific_series_that_carries_the_change_names_the_cause() -> None:
    assert naming([(TOTAL, 100.0), (TEAM, 99.0), (LEAF, 95.0), (s(team="a", model="n"), 4.0)]) == LEAF


def test_a_series_that_carries_only_a_part_does_not_name_the_cause() -> None:
    assert naming([(TEAM, 100.0), (LEAF, 50.0), (s(team="a", model="n"), 50.0)]) == TEAM


@given(st.permutations([TOTAL, TEAM, LEAF, s(team="b"), s(provider="p", model="m"), s(team="c", model="x")]))
def test_the_order_of_the_series_does_not_matter(order: list[Series]) -> None:
    assert groups(order) == groups(sorted(order))


def gpu(cluster: str, node: str, number: int) -> Series:
    return Series("gpus", ("cluster", "node", "gpu", "mig_id"), (cluster, node, f"g{number}", ""))


def g(**dims: str) -> Series:
    return Series("gpus", tuple(dims), tuple(dims.values()))


GPUS = [gpu("c1", "n1", 1), gpu("c1", "n1", 2), gpu("c1", "n2", 3), gpu("c2", "n3", 4)]
KIN = Kinship(
    {
        one: {
            "cluster": one.values[0],
            "node": one.values[1],
            "gpu": one.values[2],
            "gpu_model": "H100",
            "model": model,
        }
        for one, model in zip(GPUS, ["big", "big", "small", "other"], strict=True)
    }
)
N1, BIG, H100, ALL = g(cluster="c1", node="n1"), g(model="big"), g(gpu_model="H100"), g()


def test_faults_of_different_nodes_stay_apart_although_a_roll_up_holds_them_all() -> None:
    assert KIN.groups([GPUS[0], GPUS[2], GPUS[3], H100, ALL]) == [[GPUS[0], H100, ALL], [GPUS[2]], [GPUS[3]]]


def test_roll_ups_of_the_same_gpus_are_one_group() -> None:
    assert KIN.groups([GPUS[0], GPUS[1], N1, BIG]) == [[GPUS[0], GPUS[1], N1, BIG]]
    assert KIN.groups([N1, BIG]) == [[N1, BIG]]


def test_a_broad_roll_up_does_not_name_a_group_of_few_gpus() -> None:
    assert KIN.core([GPUS[2], H100, ALL]) == [GPUS[2]]
    assert set(KIN.core([GPUS[0], GPUS[1], BIG, ALL])) == {GPUS[0], GPUS[1], BIG, ALL}


def test_a_group_is_described_by_what_its_gpus_share() -> None:
    assert KIN.described(N1, [GPUS[0], GPUS[1], N1])["model"] == "big"
    assert "node" not in KIN.described(H100, [GPUS[0], GPUS[3], H100])
