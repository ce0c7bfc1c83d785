"""llama.cpp's computation graphs and the memory that ggml plans for them.

A graph is built as llama.cpp builds it, without data: what is not computed (weights, caches) is left out.
Source: ggml b11434, ggml.c `ggml_visit_parents_graph`, ggml-alloc.c `ggml_gallocr_alloc_graph_impl`,
`ggml_dyn_tallocr_alloc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

ALIGNMENT_BYTES = 32  # ggml-impl.h TENSOR_ALIGNMENT
ENDLESS_BYTES = 1 << 62
F32, F16, I32, I64 = 4, 2, 4, 8
NOWHERE = -1

Shape = tuple[int, int, int, int]


@dataclass(slots=True, eq=False)
class Node:
    """A tensor that is computed or set as input; the shape in ggml order, strides in bytes."""

    shape: Shape
    strides: tuple[int, ...]
    element_bytes: int
    sources: tuple[Node, ...] = ()
    root: Node | None = None
    """The tensor that a view looks into."""
    in_place: bool = False
    """Whether the operation may write over its source."""
    is_view: bool = False
    """Whether nothing is computed, only looked at in another way."""
    is_outside: bool = False
    """Whether it lies in a buffer of its own: a weight or a cache, on the device `place`."""
    is_weight: bool = False
    """Whether it is a weight, which draws the operation to its device."""
    stays: bool = False
    """Whether it is too small to draw the operation to its device (rope's factors, attention's sinks)."""
    gaps: int = 0
    """Bytes between the elements of a copy, which keeps the layout."""
    is_marker: bool = False
    """Whether it only keeps its source until then."""
    is_input: bool = False
    is_output: bool = False
    n_children: int = 0
    n_views: int = 0
    offset: int = 0
    allocated: bool = False
    planned: bool = False
    visited: bool = False
    place: int = NOWHERE
    """The device that it lies on and is computed on."""
    phase: str = ""
    """The part of the work that it belongs to."""

    @property
    def n_elements(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes that it takes when it is allocated, aligned."""
        return -(-self.n_elements * self.element_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES + self.gaps

    @property
    def copy_bytes(self) -> int:
        """Bytes that a copy of the same layout takes, gaps included, aligned."""
        ends = (n * stride for n, stride in zip((n - 1 for n in self.shape), self.strides, strict=True))
        n_bytes = sum(ends) + self.element_bytes if self.n_elements else 0
        return -(-n_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in order without gaps (dimensions of one element don't count)."""
        usual = _strides(self.shape, self.element_bytes)
        pairs = zip(self.shape, self.strides, usual, strict=True)
        return all(n == 1 or stride == expected for n, stride, expected in pairs)


def _shape(sizes: tuple[int, ...]) -> Shape:
    one, two, three, four = (*sizes, 1, 1, 1)[:4]
    return one, two, three, four


def _strides(shape: Shape, element_bytes: int) -> tuple[int, ...]:
    found = [element_bytes]
    for n in shape[:3]:
        found.append(found[-1] * n)
    return tuple(found)


@dataclass(slots=True)
class Graph:
    """Operations in the order in which they run."""

    nodes: list[Node] = field(default_factory=list)
    leafs: list[Node] = field(default_factory=list)
    phase: str = ""
    """What the tensors that are made next belong to."""

    def input(self, *sizes: int, element_bytes: int = F32) -> Node:
        """Make a tensor that is set from outside."""
        shape = _shape(sizes)
        return Node(shape, _strides(shape, element_bytes), element_bytes, is_input=True, phase="inputs")

    def op(
        self, sizes: tuple[int, ...], *sources: Node | None, element_bytes: int = F32, in_place: bool = False
    ) -> Node:
        """Make the result of an operation on those of the `sources` that are computed."""
        shape = _shape(sizes)
        found = tuple(source for source in sources if source is not None)
        strides = _strides(shape, element_bytes)
        return Node(shape, strides, element_bytes, found, in_place=in_place, phase=self.phase)

    def map(self, node: Node, *others: Node | None) -> Node:
        """Make the result of an elementwise operation, which may write over its source."""
        return self.op(node.shape, node, *others, in_place=True)

    def view(self, node: Node, sizes: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Node:
        """Look at (a part of) a tensor in another shape."""
        shape = _shape(sizes)
        own = _strides(shape, node.element_bytes) if strides is None else strides
        return Node(shape, own, node.element_bytes, (node,), root=node.root or node, is_view=True)

    def outside(self, n_bytes: int, place: int, *, weight: bool = False) -> Node:
        """Name what lies in a buffer of its own on the device `place`: a weight, or a cache."""
        shape = _shape((n_bytes,))
        return Node(shape, _strides(shape, 1), 1, is_outside=True, is_weight=weight, place=place)

    def permute(self, node: Node) -> Node:
        """Swap the second and third dimension."""
        a, b, c, d = node.shape
        strides = (node.strides[0], node.strides[2], node.strides[1], node.strides[3])
        return self.view(node, (a, c, b, d), strides)

    def store(self, *sources: Node, place: int = 0) -> Node:
        """Write into a cache on the device `place`."""
        node = self.op((0,), *sources)
        node.root = self.outside(0, place)
        node.place = place
        return node

    def expand(self, node: Node) -> Node:
        """Add a tensor and all that it is computed from to the graph."""
        stack: list[tuple[Node, int]] = [(node, 0)]
        node_was_visited, node.visited = node.visited, True
        while stack and not node_was_visited:
            at, i = stack.pop()
            if i < len(at.sources):
                stack.append((at, i + 1))
                source = at.sources[i]
                if not source.visited and not source.is_outside:
                    source.visited = True
                    stack.append((source, 0))
            else:
                (self.leafs if at.is_input else self.nodes).append(at)
        return node


class _Memory:
    """Free blocks by offset; the last one is endless."""

    def __init__(self) -> None:
        self.blocks: list[list[int]] = [[0, ENDLESS_BYTES]]

    def take(self, n_bytes: int) -> int:
        fits = [(size, -i) for i, (_, size) in enumerate(self.blocks[:-1]) if size >= n_bytes]
        i = -min(fits)[1] if fits else len(self.blocks) - 1
        block = self.blocks[i]
        offset = block[0]
        block[0] += n_bytes
        block[1] -= n_bytes
        if not block[1]:
            del self.blocks[i]
        return offset

    def give(self, offset: int, n_bytes: int) -> None:
        blocks = self.blocks
        i = 0
        while i < len(blocks) and blocks[i][0] < offset:
            i += 1
        blocks.insert(i, [offset, n_bytes])
        for j in (i, i - 1):
            if 0 <= j < len(blocks) - 1 and sum(blocks[j]) == blocks[j + 1][0]:
                blocks[j][1] += blocks[j + 1][1]
                del blocks[j + 1]


class _Plan:
    """One run of ggml's allocator, with a buffer for each device."""

    def __init__(self, n_places: int) -> None:
        self.memories = [_Memory() for _ in range(n_places)]
        self.phases: list[dict[str, int]] = [{} for _ in range(n_places)]

    def allocate(self, node: Node) -> None:
        if node.planned or node.root is not None or node.is_outside:
            return
        node.planned = node.allocated = True
        if node.in_place and any(self._reused(node, parent) for parent in node.sources):
            return
        node.offset = self.memories[node.place].take(node.n_bytes)
        end, phases = node.offset + node.n_bytes, self.phases[node.place]
        phases[node.phase] = max(phases.get(node.phase, 0), end)

    def _reused(self, node: Node, parent: Node) -> bool:
        """Write over the parent when nobody else needs it; views are never written over."""
        if not parent.allocated or parent.is_output or parent.n_children != 1 or parent.n_views:
            return False
        same = (node.element_bytes, node.shape, node.strides)
        if same != (parent.element_bytes, parent.shape, parent.strides):
            return False
        node.offset, node.place, parent.allocated = parent.offset, parent.place, False
        return True

    def release(self, parent: Node) -> None:
        parent.n_children -= 1
        if parent.n_children or parent.n_views:
            return
        owner = parent
        if parent.root is not None:
            owner = parent.root
            owner.n_views -= 1
            if owner.n_views or owner.n_children:
                return
        if owner.allocated and not owner.is_output:
            self.memories[owner.place].give(owner.offset, owner.n_bytes)
            owner.allocated = False


def plan(graph: Graph, n_places: int = 1) -> list[dict[str, int]]:
    """Return for each device and phase the bytes that reach up to its last tensor; the most is reserved.

    Every node has a place below `n_places`. A graph can be planned once.
    """
    run = _Plan(n_places)
    for leaf in graph.leafs:
        run.allocate(leaf)
    for node in graph.nodes:
        if node.root is not None and not node.is_marker:
            node.root.n_views += 1
        for source in node.sources:
            source.n_children += 1
    for node in graph.nodes:
        run.allocate(node)
        for source in node.sources:
            run.release(source)
    return run.phases
