"""Which device computes what, and what is copied between them.

Source: ggml b11434, ggml-backend.cpp `ggml_backend_sched_split_graph`, for devices that can compute
everything, each with memory of its own; the CPU is the last one. As `ggml_backend_sched_reserve_size` does
it (llama-fit-params): a server that has all layers on several GPUs also keeps norms where their layers are,
and copies a little less.
"""

from __future__ import annotations

from collections.abc import Iterable

from ggufkit.fit.graph import NOWHERE, Graph, Node, plan

PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES


def plan_on(graph: Graph, n_places: int, *, pipeline: bool = False) -> list[dict[str, int]]:
    """Return for each of `n_places` devices, the CPU last, how far each phase fills its buffer, bytes.

    With a `pipeline`, all that comes in or goes from device to device is there for several batches. A graph
    can be planned once.
    """
    cpu = n_places - 1
    if not cpu:
        for node in (*graph.leafs, *graph.nodes):
            node.place = cpu
        return plan(graph)
    _assign(graph, cpu)
    return plan(_with_copies(graph, PIPELINE_COPIES if pipeline else 1), n_places)


def _assign(graph: Graph, cpu: int) -> None:
    for leaf in graph.leafs:
        leaf.place = cpu
    for node in graph.nodes:
        if node.place == NOWHERE:
            node.place = _drawn_to(node)
    work = [node for node in graph.nodes if not node.is_view]
    _spread(work, skipped=cpu)
    _spread(reversed(work), skipped=cpu)
    _spread(work)
    _spread(reversed(work))
    for node in graph.nodes:
        if node.place == NOWHERE:
            node.place = node.root.place if node.root is not None else cpu
        for source in node.sources:
            if source.place == NOWHERE:
                source.place = node.place if source.root is None else source.root.place


def _drawn_to(node: Node) -> int:
    """Return the device of what the node looks into or of its first weight."""
    if node.root is not None and node.root.is_outside:
        return node.root.place
    if not node.stays:
        for source in node.sources:
            if source.is_weight:
                return source.place
    return NOWHERE


def _spread(nodes: Iterable[Node], skipped: int = NOWHERE) -> None:
    """Let nodes without a device have that of the node before, unless that is the `skipped` one."""
    current = NOWHERE
    for node in nodes:
        if node.place != NOWHERE:
            current = NOWHERE if node.place == skipped else node.place
        elif current != NOWHERE:
            node.place = current


def _with_copies(graph: Graph, n_copies: int) -> Graph:
    """Return the graph with a copy of all that a run of nodes on one device needs from another, before it."""
    result = Graph(leafs=list(graph.leafs))
    copies: dict[tuple[int, int], Node] = {}
    run: list[Node] = []
    wanted: list[tuple[Node, Node]] = []
    current = next((node.place for node in graph.nodes if not node.is_view), NOWHERE)
    for node in graph.nodes:
        if not node.is_view:
            if node.place != current or (wanted and _needs_weight(node)):
                _close(result, run, wanted)
                run, wanted, current = [], [], node.place
            wanted += _copied(node, copies)
        run.append(node)
    _close(result, run, wanted)
    if n_copies > 1:
        for node in [*graph.leafs, *copies.values()]:
            node.is_output = True  # not written over
            result.leafs += [_copy_of(node, node.place) for _ in range(n_copies - 1)]
        result.leafs += copies.values()
    return result


def _needs_weight(node: Node) -> bool:
    """Say whether a weight has to be copied, for which the place of earlier ones is used again."""
    return any(source.is_weight and source.place != node.place for source in node.sources)


def _copied(node: Node, copies: dict[tuple[int, int], Node]) -> list[tuple[Node, Node]]:
    """Let the node read copies of what lies elsewhere; return the new ones, each with its source."""
    new = []
    sources = list(node.sources)
    for i, source in enumerate(sources):
        if source.place == node.place:
            continue
        key = id(source), node.place
        if key not in copies:
            copies[key] = _copy_of(source, node.place)
            new.append((source, copies[key]))
        sources[i] = copies[key]
    node.sources = tuple(sources)
    return new


def _copy_of(source: Node, place: int) -> Node:
    copy = Node(source.shape, source.strides, source.element_bytes, place=place, phase="copies")
    copy.gaps = source.copy_bytes - source.n_bytes
    return copy


def _close(result: Graph, run: list[Node], wanted: list[tuple[Node, Node]]) -> None:
    for source, copy in wanted:
        marker = Node(source.shape, source.strides, source.element_bytes, (source,), place=source.place)
        marker.root, marker.is_marker = source.root or source, True
        result.nodes += [marker, copy]
    result.nodes += run
