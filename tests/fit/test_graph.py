"""ggml's planning of memory: what is reused, what stays, what is written in place."""

from __future__ import annotations

from ggufkit.fit.graph import ALIGNMENT_BYTES, Graph, Node, plan

ROW = 1024  # elements of f32: 4,096 bytes
BYTES = 4 * ROW


def total(graph: Graph, *ends: Node) -> int:
    for end in ends:
        graph.expand(end)
    return max(plan(graph)[0].values())


def test_a_chain_needs_two_at_a_time() -> None:
    graph = Graph()
    node = graph.input(ROW)
    for _ in range(10):
        node = graph.op((ROW,), node)
    assert total(graph, node) == 2 * BYTES


def test_what_works_in_place_needs_one() -> None:
    graph = Graph()
    node = graph.input(ROW)
    for _ in range(10):
        node = graph.map(node)
    assert total(graph, node) == BYTES


def test_what_is_needed_again_is_not_written_over() -> None:
    graph = Graph()
    start = graph.input(ROW)
    changed = graph.map(start)
    assert total(graph, graph.map(changed, start)) == 2 * BYTES


def test_views_take_nothing_keep_their_tensor_and_are_not_written_over() -> None:
    graph = Graph()
    node = graph.op((ROW,), graph.input(ROW))
    view = graph.view(node, (ROW // 4, 4))
    assert total(graph, graph.map(view)) == 2 * BYTES  # the input's place is free again


def test_outputs_stay() -> None:
    graph = Graph()
    kept = graph.op((ROW,), graph.input(ROW))
    kept.is_output = True
    end = graph.op((ROW,), graph.op((ROW,), kept))
    assert total(graph, end) == 3 * BYTES


def test_inputs_that_nobody_reads_stay_too() -> None:
    graph = Graph()
    unused = graph.input(ROW)
    end = graph.op((ROW,), graph.op((ROW,), graph.input(ROW)))
    assert total(graph, unused, end) == 3 * BYTES


def test_the_smallest_gap_that_is_large_enough_is_taken() -> None:
    graph = Graph()
    large, between, small, last = (graph.input(n * ROW) for n in (4, 1, 2, 1))
    for node in (large, between, small, last):
        graph.expand(node)
    freed = graph.op((1,), large, small)
    fitted = graph.op((2 * ROW,), freed)
    end = graph.op((4 * ROW,), fitted, between, last)
    assert total(graph, end) == 8 * BYTES + ALIGNMENT_BYTES


def test_sizes_are_aligned() -> None:
    graph = Graph()
    assert total(graph, graph.op((1,), graph.input(1))) == 2 * ALIGNMENT_BYTES


def test_phases_say_how_far_they_reach() -> None:
    graph = Graph()
    node = graph.input(ROW)
    for phase, size in (("small", ROW), ("large", 3 * ROW), ("small", ROW)):
        graph.phase = phase
        node = graph.op((size,), node)
    graph.expand(node)
    (phases,) = plan(graph)
    assert phases["inputs"] == BYTES
    assert max(phases, key=lambda name: phases[name]) == "large"


def test_caches_are_elsewhere() -> None:
    graph = Graph()
    node = graph.op((ROW,), graph.input(ROW))
    assert total(graph, graph.store(node)) == 2 * BYTES
