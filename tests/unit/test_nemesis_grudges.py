"""Partitions as grudges: shapes, directions, and the properties each topology promises."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nemesis import grudges
from nemesis.target import LinkRule

clusters = st.integers(1, 11).flatmap(lambda count: st.permutations([f"n{i}" for i in range(1, count + 1)]))


def heard(grudge, nodes):
    return {node: frozenset(nodes) - frozenset(grudge.get(node, ())) for node in nodes}


def symmetric(grudge):
    return all(node in grudge.get(other, ()) for node, lost in grudge.items() for other in lost)


def test_bisect_gives_the_larger_part_last():
    assert grudges.bisect(("a", "b", "c", "d", "e")) == (("a", "b"), ("c", "d", "e"))
    assert grudges.bisect(("a",)) == ((), ("a",))


def test_sizes():
    assert [grudges.majority(n) for n in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]
    assert [grudges.minority_third(n) for n in range(1, 11)] == [1, 1, 1, 1, 1, 1, 2, 2, 2, 3]


def test_complete_of_three_groups():
    assert grudges.complete((("a",), ("b", "c"))) == {
        "a": ("b", "c"),
        "b": ("a",),
        "c": ("a",),
    }
    assert grudges.complete((("a",), ("b",), ("c",))) == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}


def test_one_group_is_no_partition():
    assert grudges.complete((("a", "b"), ())) == {}


@settings(deadline=None)
@given(clusters)
def test_complete_is_symmetric_and_keeps_groups_whole(nodes):
    left, right = grudges.bisect(nodes)
    grudge = grudges.complete((left, right))
    assert symmetric(grudge)
    hears = heard(grudge, nodes)
    assert all(hears[node] == frozenset(left) for node in left)
    assert all(hears[node] == frozenset(right) for node in right)


@settings(deadline=None)
@given(clusters)
def test_isolated_node_hears_only_itself_and_the_rest_each_other(nodes):
    hears = heard(grudges.isolate(nodes[0], nodes), nodes)
    assert hears[nodes[0]] == {nodes[0]}
    assert all(hears[node] == frozenset(nodes[1:]) for node in nodes[1:])


def test_one_way_has_one_direction_and_never_names_a_node_against_itself():
    assert grudges.one_way(deaf=("a", "b"), mute=("b",)) | {} == {"a": ("b",)}
    rules = grudges.to_ruleset(grudges.one_way(deaf=("a",), mute=("b",)))
    assert {("b", "a"): LinkRule(blocked=True)} == dict(rules.links)


@settings(deadline=None)
@given(clusters.filter(lambda nodes: len(nodes) >= 3))
def test_the_bridge_hears_all_and_the_sides_only_themselves_and_it(nodes):
    middle, *others = nodes
    left, right = grudges.bisect(others)
    hears = heard(grudges.bridge(middle, left, right), nodes)
    assert hears[middle] == frozenset(nodes)
    assert all(hears[node] == {middle, *left} for node in left)
    assert all(hears[node] == {middle, *right} for node in right)


@settings(deadline=None)
@given(clusters.filter(lambda nodes: len(nodes) >= 3))
def test_in_the_ring_every_node_hears_a_majority_and_no_two_the_same(nodes):
    hears = heard(grudges.majorities_ring(nodes), nodes)
    assert all(node in seen and len(seen) >= grudges.majority(len(nodes)) for node, seen in hears.items())
    assert len(nodes) == len(set(hears.values()))


@settings(deadline=None)
@given(clusters.filter(lambda nodes: 3 <= len(nodes) <= 5))
def test_the_ring_of_up_to_five_is_perfect(nodes):
    hears = heard(grudges.majorities_ring(nodes), nodes)
    assert {grudges.majority(len(nodes))} == {len(seen) for seen in hears.values()}


@settings(deadline=None)
@given(clusters.filter(lambda nodes: len(nodes) > 3))
def test_larger_rings_work_in_both_directions(nodes):
    assert symmetric(grudges.majorities_ring(nodes))


def test_the_ring_of_one_or_two_blocks_nothing():
    assert grudges.majorities_ring(("a",)) == {}
    assert grudges.majorities_ring(("a", "b")) == {}


def test_the_ring_of_five_joins_neighbours():
    assert grudges.majorities_ring(("a", "b", "c", "d", "e")) == {
        "a": ("c", "d"),
        "b": ("d", "e"),
        "c": ("a", "e"),
        "d": ("a", "b"),
        "e": ("b", "c"),
    }


def test_a_large_ring_depends_on_the_order_and_on_nothing_else():
    nodes = tuple(f"n{i}" for i in range(9))
    assert grudges.majorities_ring(nodes) == grudges.majorities_ring(nodes)
    assert grudges.majorities_ring(nodes) != grudges.majorities_ring(nodes[::-1])


@settings(deadline=None)
@given(st.integers(6, 15).map(lambda count: [f"n{i}" for i in range(count)]))
def test_the_ring_to_fall_back_on_keeps_the_promise_as_well(nodes):
    reach = grudges.majority(len(nodes)) // 2
    hears = heard(grudges.invert(grudges._neighbours(nodes, reach), nodes), nodes)
    assert all(len(seen) >= grudges.majority(len(nodes)) for seen in hears.values())
    assert len(nodes) == len(set(hears.values()))


@settings(deadline=None)
@given(clusters)
def test_inverting_twice_comes_back(nodes):
    grudge = grudges.majorities_ring(nodes)
    assert grudge == grudges.invert(heard(grudge, nodes), nodes)


def test_blocked_links_point_from_the_unheard_to_the_deaf():
    rules = grudges.to_ruleset({"a": ("b", "c")})
    assert list(rules.links) == [("b", "a"), ("c", "a")]
    assert all(rule == LinkRule(blocked=True) for rule in rules.links.values())
