"""What the graphs of all layers have in common, and the recurrent layers.

Source: llama.cpp b11434, llama-graph.cpp, src/models/mamba-base.cpp, delta-net-base.cpp, qwen3next.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ggufkit.fit.caches import names_of
from ggufkit.fit.graph import I32, Graph, Node
from ggufkit.gguf.model import ModelInfo

PLAIN_NORM = names_of(
    """
    bloom codeshell cohere2 command-r dbrx falcon gpt2 gptneox jais jais2 mpt nemotron olmo
    orion phi2 stablelm starcoder starcoder2
    """
)
"""Architectures that subtract the mean when they normalize (LLM_NORM), which ggml does not do in place."""
SAME_LAYERS = 2
"""Layers of one kind between the same neighbours that are built; more of them need no more memory."""


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """What the graphs depend on beside the model."""

    n_tokens: int
    """Tokens that are computed at once."""
    n_sequences: int
    """Texts that are worked on at the same time."""
    n_outputs: int
    """Tokens for which the vocabulary's scores are computed."""
    n_cells: int
    """Tokens in the cache of one stream."""
    n_window_cells: int
    """The same for layers with a sliding window; 0 when the model has none."""
    n_streams: int
    """Caches that are kept apart."""
    flash: bool
    """Whether attention is computed in one step."""
    k_element_bytes: float
    """Bytes of an element of the key cache."""
    v_element_bytes: float
    """The same of the value cache."""
    k_quantized: bool
    """Whether keys are kept in a quantized type."""
    v_quantized: bool
    """The same of the values."""
    mixed_inputs: bool = True
    """Whether a batch may mix tokens and embeddings."""
    n_places: int = 1
    """Devices, the CPU last."""
    output_place: int = 0
    """The device of the output layer."""
    pipeline: bool = False
    """Whether several GPUs work on batches one after the other."""
    cache_on_cpu: bool = False
    """`--no-kv-offload`: the cache is in the computer's memory, wherever the layers are."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer has, by the names of its tensors without the block's prefix."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of its tensors."""
    windowed: bool
    """Whether its attention slides."""
    n_heads: int
    """Query heads."""
    n_kv_heads: int
    """Key-value heads; 0: a recurrent layer."""
    kind: tuple[object, ...]
    """Equal for layers that compute alike."""
    place: int = 0
    """The device that the layer is on."""
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Devices of those of its tensors that are not there."""

    def has(self, name: str) -> bool:
        """Say whether the layer has the tensor."""
        return name in self.shapes

    def rows(self, name: str) -> int:
        """Return how many elements the matrix makes."""
        return self.shapes[f"{name}.weight"][1]


def representative(layers: Sequence[Layer]) -> list[Layer]:
    """Leave out layers that repeat what was there before; the last two always stay."""
    seen: Counter[tuple[object, ...]] = Counter()
    chosen = []
    for i, layer in enumerate(layers):
        around = tuple(layers[j].kind if 0 <= j < len(layers) else None for j in (i - 1, i, i + 1))
        seen[around] += 1
        if seen[around] <= SAME_LAYERS or i >= len(layers) - 2:
            chosen.append(layer)
    return chosen


class LayerGraph:
    """A graph with the steps that layers are made of."""

    def __init__(self, info: ModelInfo, layers: Sequence[Layer], settings: ComputeSettings) -> None:
        self.info, self.layers, self.at = info, layers, settings
        self.arch = info.architecture or ""
        self.n_tokens = settings.n_tokens
        self.graph = Graph()
        self.n_embedding = info.embedding_length or 0
        self.cpu = settings.n_places - 1
        self.place, self.elsewhere = self.cpu, dict[str, int]()
        n = settings.n_sequences
        self.state_ids = self.graph.input(n, element_bytes=I32)
        self.state_ids_main = self.graph.view(self.state_ids, (n,))
        self.state_ids_tail = self.graph.view(self.state_ids, (n - 1,))

    def _weight(self, name: str = "") -> Node:
        """Name a weight of the layer that is built; its size does not matter."""
        return self.graph.outside(0, self.elsewhere.get(name, self.place), weight=True)

    def _cache(self, n_bytes: int = 0) -> Node:
        """Name (a part of) the layer's cache."""
        return self.graph.outside(n_bytes, self._cache_place())

    def _cache_place(self) -> int:
        return self.cpu if self.at.cache_on_cpu else self.place

    def _mul(self, n_rows: int, node: Node, name: str = "") -> Node:
        return self.graph.op((n_rows, *node.shape[1:]), self._weight(name), node)

    def _map(self, node: Node, *others: Node | None) -> Node:
        return self.graph.map(node, *others)

    def _norm(self, node: Node, scaled: bool, *, biased: bool = False) -> Node:
        node = self.graph.op(node.shape, node, in_place=self.arch not in PLAIN_NORM)
        node = self._map(node, self._weight()) if scaled else node
        return self._map(node, self._weight()) if biased else node

    def _named_norm(self, node: Node, layer: Layer, name: str) -> Node:
        if not layer.has(f"{name}.weight"):
            return node
        return self._norm(node, True, biased=layer.has(f"{name}.bias"))

    def _linear(self, layer: Layer, name: str, node: Node) -> Node:
        node = self._mul(layer.rows(name), node, f"{name}.weight")
        return self._map(node, self._weight(f"{name}.bias")) if layer.has(f"{name}.bias") else node

    def _copy(self, node: Node, *sizes: int) -> Node:
        return self.graph.op(sizes or node.shape, node, element_bytes=node.element_bytes)

    def _state(self, n_elements: int) -> Node:
        """Gather the states of the sequences (llama-graph.cpp build_rs)."""
        graph, n = self.graph, self.at.n_sequences
        graph.expand(self._store(self._cache()))  # one of them is cleared
        every = graph.op((n_elements, n), self._cache(4 * n_elements * n), self.state_ids)
        states = graph.expand(graph.view(every, (n_elements, n)))
        graph.expand(self._store(graph.view(every, (n_elements, 0))))
        return states

    def _scanned(self, n_elements: int, *sources: Node) -> Node:
        """Run through a state space where it lies; the states of other sequences are gathered first."""
        graph, n = self.graph, self.at.n_sequences
        state = self.info.recurrent
        assert state is not None
        size = (state.inner_size or 0) * (state.state_size or 0)
        graph.expand(self._store(self._cache()))
        others = graph.op((size, n - 1), self._cache(4 * size * n), self.state_ids_tail)
        states = self._cache(4 * size * n)
        result = graph.op((n_elements + size * n,), states, self._weight(), *sources, self.state_ids_main)
        graph.expand(result)
        graph.expand(self._store(graph.view(others, (size, 0))))
        graph.expand(self._store(graph.view(result, (size * n,))))
        return result

    def _store(self, *sources: Node) -> Node:
        return self.graph.store(*sources, place=self._cache_place())

    def _each(self) -> tuple[int, int]:
        """Return the tokens of one sequence, and the sequences."""
        return self.n_tokens // self.at.n_sequences, self.at.n_sequences

    def _turned(self, node: Node) -> Node:
        a, b, c, d = node.shape
        return self.graph.view(node, (b, a, c, d), (node.strides[1], node.strides[0], *node.strides[2:]))

    def _convolved(self, node: Node, tail: int) -> Node:
        """Put the last tokens before the new ones, keep the new last ones, and convolve."""
        graph, (n_each, n) = self.graph, self._each()
        width = node.shape[0]
        before = graph.view(self._state(tail * width), (tail, width, n))
        joined = graph.op((tail + n_each, width, n), before, self._turned(node))
        graph.expand(self._store(graph.view(joined, (tail, width, n), joined.strides)))
        return graph.op((width, n_each, n), joined, self._weight())

    def _mamba(self, current: Node, layer: Layer) -> Node:
        graph, state, (n_each, n) = self.graph, self.info.recurrent, self._each()
        assert state is not None
        inner, size, rank = state.inner_size or 0, state.state_size or 0, state.time_step_rank or 0
        both = self._mul(2 * inner, graph.view(current, (current.shape[0], n_each, n)))
        x, z = (graph.view(both, (inner, n_each, n), both.strides) for _ in range(2))
        x = self._map(self._map(self._convolved(x, (state.conv_kernel or 1) - 1), self._weight()))
        mixed = self._mul(rank + 2 * size, x)
        step = graph.view(mixed, (rank, n_each, n), mixed.strides)
        b, c = (graph.view(mixed, (size, 1, n_each, n), (4, 4 * size, *mixed.strides[1:3])) for _ in range(2))
        if layer.has("ssm_dt_norm.weight"):
            step, b, c = (self._norm(node, True) for node in (step, b, c))
        else:
            step = self._copy(step)
        step = self._map(self._mul(inner, step), self._weight())
        y = self._scanned(inner * n_each * n, graph.view(x, (1, inner, n_each, n)), step, b, c)
        result = self._map(graph.view(y, (inner, n_each, n)), self._map(x, self._weight()))
        result = graph.op(result.shape, self._copy(z), result)
        return graph.view(self._mul(layer.rows("ssm_out"), result), (layer.rows("ssm_out"), self.n_tokens))

    def _mamba2(self, current: Node, layer: Layer) -> Node:
        graph, state, (n_each, n) = self.graph, self.info.recurrent, self._each()
        assert state is not None
        inner, size, heads = state.inner_size or 0, state.state_size or 0, state.time_step_rank or 1
        groups, head = state.n_groups or 1, inner // heads
        width = inner + 2 * groups * size
        # the states of the convolution are gathered before the projection is used
        full = graph.view(self._linear(layer, "ssm_in", current), (layer.rows("ssm_in"), n_each, n))
        by_head = (4, 4 * head, *full.strides[1:3])
        z = graph.view(full, (head, heads, n_each, n), by_head)
        step = graph.view(full, (heads, n_each, n), full.strides)
        mixed = graph.view(full, (width, n_each, n), full.strides)
        mixed = self._map(self._map(self._convolved(mixed, (state.conv_kernel or 1) - 1), self._weight()))
        x = graph.view(mixed, (head, heads, n_each, n), (4, 4 * head, *mixed.strides[1:3]))
        b, c = (
            graph.view(mixed, (size, groups, n_each, n), (4, 4 * size, *mixed.strides[1:3])) for _ in range(2)
        )
        step = self._map(self._copy(step), self._weight())
        y = self._scanned(inner * n_each * n, x, step, b, c)
        result = graph.view(y, (head, heads, n_each, n))
        result = self._map(result, self._map(x, self._weight()))
        result = graph.op(result.shape, self._copy(z), result)
        if layer.has("ssm_norm.weight"):
            result = self._norm(graph.view(result, (inner // groups, groups, n_each, n)), True)
        return self._mul(layer.rows("ssm_out"), graph.view(result, (inner, self.n_tokens)))

    def _delta_net(self, current: Node, layer: Layer) -> Node:
        """Qwen3-Next's linear attention, computed in one step."""
        graph, state, (n_each, n) = self.graph, self.info.recurrent, self._each()
        assert state is not None
        size, k_heads, v_heads = state.state_size or 0, state.n_groups or 1, state.time_step_rank or 1
        length = (state.inner_size or 0) // v_heads
        mixed, z = self._mixed_qkv(current, layer, size, k_heads, length * v_heads)
        pair = self._mul(layer.rows("ssm_ba"), current)
        pair = graph.view(pair, (2 * v_heads // k_heads, k_heads, n_each, n))
        b, a = (graph.view(pair, (v_heads // k_heads, k_heads, n_each, n), pair.strides) for _ in range(2))
        beta = graph.view(self._map(self._copy(b)), (1, v_heads, n_each, n))
        gate = self._map(self._map(self._copy(a, v_heads, n_each, n), self._weight()))
        gate = self._map(gate, self._weight())
        gate = graph.view(gate, (1, v_heads, n_each, n))
        joined = self._convolved(mixed, (state.conv_kernel or 1) - 1)
        states = graph.view(self._state(length * length * v_heads), (length, length, v_heads, n))
        joined = self._map(joined)
        q, k = (self._unit(self._heads(joined, size, k_heads)) for _ in range(2))
        v = self._heads(joined, length, v_heads)
        if k_heads != v_heads:
            q, k = (self._repeated(node, v_heads // k_heads) for node in (q, k))
        result = graph.op((length * v_heads, n_each * n + length * n), q, k, v, gate, beta, states)
        output = graph.view(result, (length, v_heads, n_each, n))
        graph.expand(self._store(graph.view(result, (length, length, v_heads, n))))
        normed = self._norm(output, True)
        opened = self._map(graph.view(z, (length, v_heads, n_each, n)))
        closed = graph.view(self._map(normed, opened), (length * v_heads, n_each, n))
        return graph.view(self._mul(layer.rows("ssm_out"), closed), (layer.rows("ssm_out"), self.n_tokens))

    def _mixed_qkv(
        self, current: Node, layer: Layer, size: int, k_heads: int, width: int
    ) -> tuple[Node, Node]:
        """Return queries, keys and values in one, and the gate."""
        graph, (n_each, n) = self.graph, self._each()
        if layer.has("attn_qkv.weight"):
            mixed = self._mul(layer.rows("attn_qkv"), current)
            mixed = graph.view(mixed, (mixed.shape[0], n_each, n))
            return mixed, self._mul(layer.rows("attn_gate"), current)
        own = width // k_heads
        full = graph.view(self._mul(layer.rows("ssm_in"), current), (2 * size + 2 * own, k_heads, n_each, n))
        q, k = (graph.view(full, (size, k_heads, n_each, n), full.strides) for _ in range(2))
        v, z = (graph.view(full, (own, k_heads, n_each, n), full.strides) for _ in range(2))
        gate = self._copy(z)
        flat = [self._copy(node, prod(node.shape[:2]), n_each, n) for node in (q, k, v)]
        mixed = graph.op((2 * size * k_heads, n_each, n), flat[0], flat[1])
        return graph.op((2 * size * k_heads + width, n_each, n), mixed, flat[2]), gate

    def _heads(self, node: Node, size: int, n_heads: int) -> Node:
        n_each, n = self._each()
        return self.graph.view(node, (size, n_heads, n_each, n), (4, 4 * size, *node.strides[1:3]))

    def _unit(self, node: Node) -> Node:
        return self._map(self._norm(node, False))

    def _repeated(self, node: Node, times: int) -> Node:
        size, heads, n_each, n = node.shape
        flat = self.graph.view(node, (size, 1, heads, n_each * n))
        wide = self.graph.op((size, times, heads, n_each * n), flat)
        return self.graph.view(wide, (size, times * heads, n_each, n))
