"""Attention in llama.cpp's graphs: over keys and values, or over DeepSeek's compressed cache.

Source: llama.cpp b11434, llama-graph.cpp build_qkv, build_attn, build_attn_mha; src/models/deepseek2.cpp;
llama-kv-cache.cpp.
"""

from __future__ import annotations

from ggufkit.fit.graph import F16, I32, I64, Node
from ggufkit.fit.layers import Layer, LayerGraph
from ggufkit.gguf.model import Attention

CACHE_ROTATION = 64  # llama-kv-cache.cpp: quantized caches are turned by Hadamard matrices of at least this


class AttentionGraph(LayerGraph):
    """A graph with the steps of attention."""

    def _inputs(self) -> None:
        graph, at, n = self.graph, self.at, self.n_tokens
        mask_bytes = F16 if at.flash else 4
        attention = self.info.attention
        v_rows = 1
        if attention and not at.flash:
            v_rows = max((layer.n_kv_heads for layer in self.layers), default=1) * attention.value_length
        self.positions = graph.input(n * self._positions_per_token(), element_bytes=I32)
        self.temperatures = graph.input(1, 1, n)  # llama4's, of layers without a window
        self.out_ids = graph.input(at.n_outputs, element_bytes=I32)
        self.caches = {
            windowed: (
                graph.input(n, element_bytes=I64),
                graph.input(n * max(v_rows, 1), element_bytes=I64),
                graph.input(cells, n // at.n_streams, 1, at.n_streams, element_bytes=mask_bytes),
            )
            for windowed, cells in ((False, at.n_cells), (True, at.n_window_cells))
        }
        self.rotations = {windowed: self._rotations(attention) for windowed in (False, True)}

    def _positions_per_token(self) -> int:
        return 4 if "vl" in self.arch or self.arch in ("qwen35", "qwen35moe", "paddleocr") else 1

    def _rotations(self, attention: Attention | None) -> tuple[Node | None, Node | None]:
        if attention is None or attention.key_length_mla:
            return None, None
        size = CACHE_ROTATION
        if not attention.key_length:
            return None, None
        while attention.key_length % (2 * size) == 0:
            size *= 2
        k = self.at.k_quantized and attention.key_length % CACHE_ROTATION == 0
        v = self.at.v_quantized and attention.value_length % CACHE_ROTATION == 0
        return (
            self.graph.input(size, size) if k else None,
            self.graph.input(CACHE_ROTATION, CACHE_ROTATION) if v else None,
        )

    def _attention(self, current: Node, layer: Layer) -> Node:
        graph, attention, n = self.graph, self.info.attention, self.n_tokens
        assert attention is not None
        key = (attention.key_length_swa if layer.windowed else None) or attention.key_length
        value = (attention.value_length_swa if layer.windowed else None) or attention.value_length
        gate = None
        if layer.has("attn_qkv.weight"):
            q, k, v = self._fused_qkv(current, layer, key, value)
        else:
            q = self._linear(layer, "attn_q", current)
            k = graph.view(self._linear(layer, "attn_k", current), (key, layer.n_kv_heads, n))
            v = graph.view(self._linear(layer, "attn_v", current), (value, layer.n_kv_heads, n))
            if q.shape[0] == 2 * key * layer.n_heads:  # with a gate for the result (qwen3next)
                full = graph.view(q, (2 * key, layer.n_heads, n))
                q, gate = (graph.view(full, (key, layer.n_heads, n), full.strides) for _ in range(2))
            else:
                q = graph.view(q, (key, layer.n_heads, n))
        q, k = self._named_norm(q, layer, "attn_q_norm"), self._named_norm(k, layer, "attn_k_norm")
        if layer.windowed or self.arch not in ("cohere2", "cohere2moe"):
            q, k = self._rope(q), self._rope(k)
        if self.arch.startswith("gemma") or self.arch == "phi3":
            q = self._map(q)
        if self.arch == "llama4" and not layer.windowed:
            q = self._map(q, self.temperatures)
        current = self._cached(q, k, v, layer, value)
        if gate is not None:
            opened = self._map(self._copy(gate, key * layer.n_heads, n))
            current = self._map(current, opened)
        return self._linear(layer, "attn_output", current)

    def _fused_qkv(self, current: Node, layer: Layer, key: int, value: int) -> tuple[Node, Node, Node]:
        qkv = self._linear(layer, "attn_qkv", current)
        n, row = self.n_tokens, qkv.strides[1]
        q, k, v = (
            self.graph.view(qkv, (size, heads, n), (4, 4 * size, row, row * n))
            for size, heads in ((key, layer.n_heads), (key, layer.n_kv_heads), (value, layer.n_kv_heads))
        )
        return q, k, v

    def _rope(self, node: Node) -> Node:
        if self.arch == "jamba":
            return node
        return self.graph.op(node.shape, node, self.positions, in_place=True)

    def _rotated(self, node: Node, rotation: Node | None) -> Node:
        if rotation is None:
            return node
        size = rotation.shape[0]
        flat = (size, node.n_elements // size)
        source = self.graph.view(node, flat) if node.contiguous else self._copy(node, *flat)
        return self.graph.view(self.graph.op(flat, rotation, source), node.shape)

    def _cached(self, q: Node, k: Node, v: Node, layer: Layer, value: int) -> Node:
        """Store keys and values, then attend to all of the cache."""
        graph, n = self.graph, self.n_tokens
        k_rotation, v_rotation = self.rotations[layer.windowed]
        q, k, v = self._rotated(q, k_rotation), self._rotated(k, k_rotation), self._rotated(v, v_rotation)
        for node in (q, v, k):
            graph.expand(node)
        k_ids, v_ids, _ = self.caches[layer.windowed]
        flat = (k.shape[0] * k.shape[1], n)
        graph.expand(self._store(graph.view(k, flat, _rows(k, n)), k_ids))
        wide = (v.shape[0] * v.shape[1], n)
        if self.at.flash:
            values = graph.view(v, wide, _rows(v, n))
        else:
            values = graph.view(v, wide) if v.contiguous else self._copy(v, *wide)
            values = graph.view(values, (1, values.n_elements))
        graph.expand(self._store(values, v_ids))
        result = self._attend(q, layer, value, own_values=True)
        return self._rotated(result, v_rotation)

    def _attend(
        self, q: Node, layer: Layer, value: int, *, own_values: bool, unpacked: int | None = None
    ) -> Node:
        """llama-graph.cpp build_attn_mha; `unpacked`: the length of MLA's values when they are unpacked."""
        graph, at = self.graph, self.at
        mask = self.caches[layer.windowed][2]
        n_cells, n_each, heads = mask.shape[0], self.n_tokens // at.n_streams, q.shape[1]
        by_stream = (q.shape[0], heads, n_each, at.n_streams)
        strides = (*q.strides[:3], q.strides[2] * n_each)
        q = graph.permute(graph.view(q, by_stream, strides))
        if at.flash:
            result = self._flash(q, mask, layer, value, own_values)
            if unpacked:
                wide = (unpacked, n_each, heads, at.n_streams)
                result = graph.op(wide, self._weight("attn_v_b.weight"), graph.permute(result))
                result = self._copy(graph.permute(result))
            return graph.expand(graph.view(result, (result.shape[0] * heads, self.n_tokens)))
        keys, kept_values = self._kept(q.shape[0], value, layer, n_cells, own_values)
        scores = graph.op((n_cells, n_each, heads, at.n_streams), keys, q)
        scores = self._softcapped(scores)
        scores = self._map(scores, mask)
        values = kept_values
        if not own_values:
            values = self._external_copy(kept_values, n_cells * value * at.n_streams, at.k_element_bytes)
        result = graph.op((value, n_each, heads, at.n_streams), values, scores)
        if unpacked:
            packed = result
            wide = (unpacked, n_each, heads, at.n_streams)
            result = graph.op(wide, self._weight("attn_v_b.weight"), packed)
        result = graph.permute(result)
        return graph.expand(self._copy(result, result.shape[0] * heads, self.n_tokens))

    def _kept(self, key: int, value: int, layer: Layer, n_cells: int, own_values: bool) -> tuple[Node, Node]:
        """Name keys and values in the cache, which are copied where the cache is on another device."""
        at, heads = self.at, max(layer.n_kv_heads, 1)
        rows = n_cells * at.n_streams
        keys = int(rows * heads * key * at.k_element_bytes)
        if own_values:
            return self._cache(keys), self._cache(int(rows * heads * value * at.v_element_bytes))
        return self._cache(keys), self._cache(keys - int((key - value) * at.k_element_bytes))

    def _softcapped(self, scores: Node) -> Node:
        if self.arch in ("gemma2", "grok"):
            for _ in range(3):
                scores = self._map(scores)
        return scores

    def _external_copy(self, node: Node, n_elements: int, element_bytes: float) -> Node:
        return self.graph.op((int(n_elements * element_bytes),), node, element_bytes=1)

    def _flash(self, q: Node, mask: Node, layer: Layer, value: int, own_values: bool) -> Node:
        """Caches of f32 are copied to f16 first."""
        at, n_cells, heads = self.at, mask.shape[0], max(layer.n_kv_heads, 1)
        copies: list[Node] = []
        value_bytes = at.v_element_bytes if own_values else at.k_element_bytes
        kept = self._kept(q.shape[0], value, layer, n_cells, own_values)
        lengths = (q.shape[0], at.k_element_bytes), (value, value_bytes)
        for node, (length, element_bytes) in zip(kept, lengths, strict=True):
            if element_bytes == 4:
                node = self.graph.op((length, n_cells, heads, at.n_streams), node, element_bytes=F16)
            copies.append(node)
        return self.graph.op((value, q.shape[2], q.shape[1], at.n_streams), q, *copies, mask)

    def _latent_attention(self, current: Node, layer: Layer) -> Node:
        """DeepSeek's attention over a compressed cache (MLA), or unpacked in files of before April 2025."""
        graph, attention, n = self.graph, self.info.attention, self.n_tokens
        assert attention is not None
        mla = bool(attention.key_length_mla)
        key = attention.key_length_mla or attention.key_length
        value = attention.value_length_mla or attention.value_length
        rank, rope = attention.kv_lora_rank or 0, attention.rope_dimension_count or 0
        heads = layer.n_heads
        if layer.has("attn_q_a.weight"):
            q = self._named_norm(self._linear(layer, "attn_q_a", current), layer, "attn_q_a_norm")
            q = self._mul(key * heads, q, "attn_q_b.weight")
        else:
            q = self._linear(layer, "attn_q", current)
        q = graph.view(q, (key, heads, n))
        packed = self._linear(layer, "attn_kv_a_mqa", current)
        width = 4 * (rank + rope)
        keys_rope = self._rope(graph.view(packed, (rope, 1, n), (4, width, width, width * n)))
        latent = self._norm(graph.view(packed, (rank, n), (4, width, width * n, width * n)), True)
        if mla:
            return self._compressed(q, keys_rope, latent, layer, (key - rope, rope, rank, value))
        unpacked = self._mul((key - rope + value) * heads, latent, "attn_kv_b.weight")
        parts = (4, 4 * (key - rope + value), 4 * (key - rope + value) * heads)
        k_plain = graph.view(unpacked, (key - rope, heads, n), (*parts, parts[2] * n))
        v = self._copy(graph.view(unpacked, (value, heads, n), (*parts, parts[2] * n)))
        q = self._rope(q)
        k = graph.op((key, heads, n), k_plain, graph.op((rope, heads, n), keys_rope))
        return self._linear(layer, "attn_output", self._cached(q, k, v, layer, value))

    def _compressed(
        self, q: Node, keys_rope: Node, latent: Node, layer: Layer, sizes: tuple[int, int, int, int]
    ) -> Node:
        graph, n, heads = self.graph, self.n_tokens, layer.n_heads
        plain, rope, rank, value = sizes
        q_plain = graph.view(q, (plain, heads, n), q.strides)
        q_rope = self._rope(graph.view(q, (rope, heads, n), q.strides))
        absorbed = graph.op((rank, n, heads), self._weight("attn_k_b.weight"), graph.permute(q_plain))
        absorbed = graph.permute(absorbed)
        query = graph.op((rank + rope, heads, n), absorbed, q_rope)
        latent = graph.view(latent, (rank, 1, n))
        k = graph.op((rank + rope, 1, n), latent, keys_rope)
        for node in (query, latent, k):
            graph.expand(node)
        graph.expand(self._store(graph.view(k, (rank + rope, n)), self.caches[layer.windowed][0]))
        result = self._attend(query, layer, rank, own_values=False, unpacked=value)
        return self._linear(layer, "attn_output", result)


def _rows(node: Node, n: int) -> tuple[int, ...]:
    """Return the strides of a view with a row for each of `n` tokens."""
    first, _, row, _ = node.strides
    return first, row, row * n, row * n
