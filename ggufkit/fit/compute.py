"""The buffer that llama.cpp computes in: its graphs built from the header, and planned as ggml plans them.

What a layer does is read from the tensors that the file has. Source: llama.cpp b11434, llama-graph.cpp,
src/models/, llama-context.cpp `sched_reserve`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ggufkit.fit.attention import AttentionGraph
from ggufkit.fit.caches import INDEXED, KDA, NO_CACHE, RWKV, SHORTCONV, Certainty, layer_kinds, names_of
from ggufkit.fit.graph import I32, I64, Node
from ggufkit.fit.layers import ComputeSettings, Layer, representative
from ggufkit.fit.placement import Placement, place
from ggufkit.fit.schedule import plan_on
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo

MEASURED = names_of(
    """
    arcee bailingmoe2 chatglm cohere2 command-r deci deepseek deepseek2 dots1 ernie4_5
    ernie4_5-moe exaone exaone4 falcon gemma gemma2 gemma3 glm4 glm4moe gpt-oss gptneox granite
    granitehybrid granitemoe hunyuan-dense hunyuan-moe internlm2 jamba llama minicpm minimax-m2
    mistral3 nemotron olmo2 olmoe orion phi3 qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3next
    qwen3vl qwen3vlmoe seed_oss smollm3 stablelm starcoder2 xverse
    """
)
"""Architectures whose buffers were held against llama.cpp's own, to the byte (tests/fit/test_compute.py)."""
NOT_BUILT = (
    NO_CACHE
    | RWKV
    | KDA
    | SHORTCONV
    | INDEXED
    | names_of(
        """
    chameleon cogvlm deepseek4 dflash dots3note eagle3 falcon-h1 gemma3n gemma4 glm5-next grok hrm_text
    hy_v4 minicpm3 minimax-01 nanbeige openelm plamo2 qwen4exp t5 t5encoder
    """
    )
)
"""Architectures whose layers do something else than what is built here."""
OUTPUTS_LATE = names_of(
    """
    bailingmoe3 cohere2moe gemma4 gpt-oss hy_v3 nemotron_h qwen35 qwen35moe qwen3next step35
    """
)
"""Architectures that leave out the tokens without an output after the last layer, not within it."""
RECURRENT_BUILT = names_of("granitehybrid jamba qwen3next")
"""Architectures whose recurrent layers are built."""
MOST_EXPERTS = 512  # llama-hparams.h LLAMA_MAX_EXPERTS

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


def certainty_of(info: ModelInfo) -> Certainty:
    """Say how much can be said of the buffer of a model of this architecture."""
    if info.architecture in MEASURED:
        return "exact"
    return "unknown" if info.architecture in NOT_BUILT else "approximate"


def layers_of(
    info: ModelInfo, tensors: Sequence[TensorInfo], placed: Placement | None = None
) -> list[Layer] | None:
    """Return what the layers have; None when something is missing that is needed to build them."""
    placed = placed or place(None, info.n_layers or 0)
    attention, kinds = info.attention, layer_kinds(info)
    if attention is None or certainty_of(info) == "unknown" or not _sound(info):
        return None
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in kinds]
    for tensor in tensors:
        block = _BLOCK.fullmatch(tensor.name)
        if block is not None and len(block[1]) < 6 and int(block[1]) < len(shapes):
            shapes[int(block[1])][block[2]] = tuple(tensor.shape)
    layers = []
    for i, (windowed, recurrent) in enumerate(kinds):
        n_kv_heads = 0 if recurrent else attention.n_kv_heads[i]
        at, elsewhere = placed.layers[i], placed.elsewhere(i, shapes[i])
        where = at, tuple(sorted(elsewhere.items()))
        kind = (tuple(sorted(shapes[i].items())), windowed, n_kv_heads, attention.n_heads[i], where)
        layers.append(Layer(shapes[i], windowed, attention.n_heads[i], n_kv_heads, kind, at, elsewhere))
    return layers if layers and all(_complete(info, layer) for layer in layers) else None


def _sound(info: ModelInfo) -> bool:
    """Say whether the header gives the numbers that every graph needs."""
    used = info.experts.n_used if info.experts else None
    lengths = info.attention and (info.attention.key_length, info.attention.value_length)
    return bool(info.n_vocabulary and info.embedding_length and lengths and all(lengths)) and (
        (used or 1) <= MOST_EXPERTS
    )


def _complete(info: ModelInfo, layer: Layer) -> bool:
    """Say whether the layer's matrices are those that are built."""
    needed = _attention_names(layer) if layer.n_kv_heads else _recurrent_names(info, layer)
    experts = ["ffn_gate_inp", "ffn_up_exps", "ffn_down_exps"]
    needed += experts if layer.has("ffn_gate_inp.weight") else ["ffn_up", "ffn_down"]
    for suffix in ("_exps", "_shexp", ""):
        needed += [f"ffn_gate{suffix}"] if layer.has(f"ffn_gate{suffix}.weight") else []
    needed += ["ffn_up_shexp", "ffn_down_shexp"] if layer.has("ffn_up_shexp.weight") else []
    return all(len(layer.shapes.get(f"{name}.weight", ())) > 1 for name in needed)


def _attention_names(layer: Layer) -> list[str]:
    if layer.has("attn_kv_a_mqa.weight"):
        query = "attn_q_a" if layer.has("attn_q_a.weight") else "attn_q"
        return ["attn_kv_a_mqa", "attn_output", query]
    if layer.has("attn_qkv.weight"):
        return ["attn_qkv", "attn_output"]
    return ["attn_q", "attn_k", "attn_v", "attn_output"]


def _recurrent_names(info: ModelInfo, layer: Layer) -> list[str]:
    """Return what a recurrent layer needs; of an unknown kind: what no layer has."""
    if info.recurrent is None or info.architecture not in RECURRENT_BUILT:
        return ["unknown kind"]
    if info.architecture != "qwen3next":
        return ["ssm_in", "ssm_out"]
    mixed = ["attn_qkv", "attn_gate"] if layer.has("attn_qkv.weight") else ["ssm_in"]
    return [*mixed, "ssm_ba", "ssm_out"]


def compute_phases(
    info: ModelInfo, layers: Sequence[Layer], settings: ComputeSettings
) -> list[dict[str, int]]:
    """Return for each device, the CPU last, the bytes that each phase of a batch reaches up to.

    The most of them is reserved.
    """
    return ModelGraph(info, representative(layers), settings).phases(info.n_vocabulary or 0)


class ModelGraph(AttentionGraph):
    """Builds the graph of one model."""

    def phases(self, n_vocabulary: int) -> list[dict[str, int]]:
        """Return what each phase needs on each device, bytes; the most of them is reserved."""
        self.graph.phase = "embedding"
        self._inputs()
        current = self._embedding()
        late = self.arch in OUTPUTS_LATE
        for i, layer in enumerate(self.layers):
            self.place, self.elsewhere = layer.place, dict(layer.elsewhere)
            current = self._layer(current, layer, last=i == len(self.layers) - 1 and not late)
        if late:
            current = self._outputs_only(current)
        self.graph.phase = "output"
        self.place, self.elsewhere = self.at.output_place, {}
        current = self._norm(current, True)
        current.is_output = True
        logits = self._mul(n_vocabulary, current)
        if self.arch in ("gemma2", "gemma4"):
            logits = self._map(self._map(self._map(logits)))
        logits.is_output = True
        self.graph.expand(logits)
        return plan_on(self.graph, self.at.n_places, pipeline=self.at.pipeline)

    # Inputs

    def _embedding(self) -> Node:
        """llama-graph.cpp build_inp_embd: tokens, embeddings and a mixture of both are all provided for."""
        graph, n, size = self.graph, self.n_tokens, self.n_embedding
        given = graph.input(size, n)
        found = graph.expand(graph.op((size, n), self._weight(), graph.input(n, element_bytes=I32)))
        graph.expand(given)
        if self.at.mixed_inputs:
            copy = graph.op((size, n), graph.input(size, n))
            tokens = graph.op((size, n), self._weight(), graph.input(n, element_bytes=I32))
            written = graph.op((size, n), tokens, graph.input(n, element_bytes=I64), copy)
            written.root = copy
            graph.expand(written)
        if self.arch.startswith("gemma"):
            by_row = self.at.mixed_inputs and self.arch not in ("gemma", "gemma2")
            found = self._map(found, *([graph.input(1, n)] if by_row else []))
        return graph.expand(found)

    def _outputs_only(self, node: Node) -> Node:
        return self.graph.op((node.shape[0], self.at.n_outputs), node, self.out_ids)

    # A layer

    def _layer(self, before: Node, layer: Layer, *, last: bool) -> Node:
        self.graph.phase = "attention" if layer.n_kv_heads else "recurrent layers"
        current = self._named_norm(before, layer, "attn_norm")
        if self.arch == "qwen3next":
            self.graph.expand(current)
        normed = current
        if layer.n_kv_heads and layer.has("attn_kv_a_mqa.weight"):
            current = self._latent_attention(current, layer)
        elif layer.n_kv_heads:
            current = self._attention(current, layer)
        elif self.arch == "qwen3next":
            current = self._delta_net(current, layer)
        elif layer.has("ssm_x.weight"):
            current = self._mamba(current, layer)
        else:
            current = self._mamba2(current, layer)
        alone = not layer.has("ffn_norm.weight") and not layer.has("post_attention_norm.weight")
        if last:
            current, before = self._outputs_only(current), self._outputs_only(before)
            normed = self._outputs_only(normed) if alone else normed
        if alone and layer.has("attn_norm.weight"):
            return self._beside_attention(current, before, normed, layer)
        return self._after_attention(current, before, layer)

    def _beside_attention(self, current: Node, before: Node, normed: Node, layer: Layer) -> Node:
        """Both halves of the layer work on the same input."""
        if self.arch == "stablelm":
            return self._map(self._forward(normed, layer), self._map(current, before))
        pair = (current, before) if self.arch in ("falcon", "phi2") else (before, current)
        return self._map(self._map(self._forward(normed, layer), pair[0]), pair[1])

    def _after_attention(self, current: Node, before: Node, layer: Layer) -> Node:
        if layer.has("ffn_norm.weight") or not layer.has("attn_norm.weight"):
            current = self._named_norm(current, layer, "post_attention_norm")
            residual = self._sum(current, before)
            current = self._named_norm(residual, layer, "ffn_norm")
        else:
            residual = self._map(current, before)
            current = self._named_norm(residual, layer, "post_attention_norm")
        current = self._named_norm(self._forward(current, layer), layer, "post_ffw_norm")
        return self._map(residual, current) if self.arch == "phi3" else self._sum(current, residual)

    def _forward(self, current: Node, layer: Layer) -> Node:
        routed = layer.has("ffn_gate_inp.weight")
        self.graph.phase = "experts" if routed else "feed-forward"
        return self._experts(current, layer) if routed else self._ffn(current, layer)

    def _sum(self, current: Node, residual: Node) -> Node:
        """Add what a layer computes to what came in, over the one of the two that llama.cpp names first."""
        return self._map(residual, current) if self.arch == "jamba" else self._map(current, residual)

    # Feed-forward

    def _ffn(self, current: Node, layer: Layer, suffix: str = "") -> Node:
        up = self._linear(layer, f"ffn_up{suffix}", current)
        if layer.has(f"ffn_gate{suffix}.weight"):
            gate = self._linear(layer, f"ffn_gate{suffix}", current)
            inner = self.graph.op(gate.shape, gate, up)
        elif up.shape[0] == 2 * layer.shapes[f"ffn_down{suffix}.weight"][0]:
            inner = self.graph.op((up.shape[0] // 2, *up.shape[1:]), up)
        else:
            inner = self._map(up)
        return self._linear(layer, f"ffn_down{suffix}", inner)

    def _experts(self, current: Node, layer: Layer) -> Node:
        graph, n = self.graph, current.shape[1]
        experts = self.info.experts
        n_used = (experts.n_used if experts else None) or 1
        scores = self._linear(layer, "ffn_gate_inp", current)
        n_experts = scores.shape[0]
        softmax_later = self.arch == "gpt-oss"
        probabilities = scores if softmax_later else self._map(scores)
        biased = layer.has("exp_probs_b.bias")
        ranked = self._map(probabilities, self._weight()) if biased else probabilities
        order = graph.op((n_experts, n), ranked, element_bytes=I32)
        chosen = graph.view(order, (n_used, n), order.strides)
        weights = graph.op((1, n_used, n), graph.view(probabilities, (1, n_experts, n)), chosen)
        if softmax_later:
            weights = graph.view(self._map(graph.view(weights, (n_used, n))), (1, n_used, n))
        elif self.arch not in ("jamba", "llama4"):
            flat = graph.view(weights, (n_used, n))
            weights = graph.view(self._map(flat, self._map(graph.op((1, n), flat))), (1, n_used, n))
        graph.expand(weights)
        out = self._routed(graph.view(current, (current.shape[0], 1, n)), chosen, weights, layer, n_used)
        if not layer.has("ffn_up_shexp.weight"):
            return out
        shared = self._ffn(current, layer, "_shexp")
        if layer.has("ffn_gate_inp_shexp.weight"):
            shared = self._map(shared, self._map(self._mul(1, current, "ffn_gate_inp_shexp.weight")))
        return self._map(out, shared)

    def _routed(self, current: Node, chosen: Node, weights: Node, layer: Layer, n_used: int) -> Node:
        graph, n = self.graph, current.shape[2]

        def by_expert(name: str, node: Node) -> Node:
            weight = self._weight(f"{name}.weight")
            result = graph.op((layer.rows(name), n_used, n), weight, node, chosen)
            if not layer.has(f"{name}.bias"):
                return result
            return self._map(result, self._weight(f"{name}.bias"), chosen)

        if self.arch == "llama4":
            current = self._map(graph.op((current.shape[0], n_used, n), current), weights)
        up = by_expert("ffn_up_exps", current)
        gate = by_expert("ffn_gate_exps", current) if layer.has("ffn_gate_exps.weight") else None
        inner = graph.op(up.shape, gate, up) if gate else self._map(up)
        results = by_expert("ffn_down_exps", inner)
        if self.arch != "llama4":
            results = self._map(results, weights)
        graph.expand(results)
        size = results.shape[0]
        parts = [
            graph.expand(graph.view(results, (size, n), (4, results.strides[2], 0, 0))) for _ in range(n_used)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = graph.expand(self._map(total, part))
        return self._copy(total) if n_used == 1 else total
