"""The three APIs: what a server is, which models it has, how one is loaded and asked."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ggufkit.bench.result import Api, Load, ModelFacts, Settings
from ggufkit.bench.trace import Trace, positive, read_lmstudio, read_ollama, read_openai, whole
from ggufkit.bench.web import Refused, Web, lines
from ggufkit.errors import NetworkError

KEEP_ALIVE = "2h"  # longer than any thinking: a model unloaded between two questions is loaded anew
Reader = Callable[[Trace, float, bytes], None]
Watch = Callable[[Trace], None]
DROPPABLE = ("stream_options", "timings_per_token", "cache_prompt", "seed")
"""Fields that an answer can do without."""


class Client(Protocol):
    """A server that is spoken to through one API."""

    api: Api
    kind: str
    version: str | None
    web: Web
    rejected: set[str]

    def models(self) -> tuple[str, ...] | None:
        """Return the models it lists; None when it lists none."""

    def facts(self, model: str) -> ModelFacts:
        """Return what it says of a model."""

    def file(self, model: str) -> str | None:
        """Return the path, on the server's machine, of the file that a model is read from, if it says so."""

    def load(self, model: str, settings: Settings, timeout_s: float) -> Load:
        """Bring a model into memory; raises Refused, NetworkError."""

    def ask(self, model: str, prompt: str, settings: Settings, timeout_s: float, watch: Watch) -> Trace:
        """Ask, and return what came; failures are in the trace."""


def _stream(
    web: Web, path: str, body: Mapping[str, Any], read: Reader, timeout_s: float, watch: Watch
) -> Trace:
    """Send a request and read its stream to the end; raises Refused, failures after that are in the trace."""
    trace, begun = Trace(), time.perf_counter()
    try:
        with web.request(path, body, timeout_s=timeout_s) as answer:
            begun = answer.sent_at
            trace.headers_s = time.perf_counter() - begun
            for line in lines(answer.response):
                read(trace, time.perf_counter() - begun, line)
                watch(trace)
    except TimeoutError:
        trace.timed_out, trace.error = True, f"nothing came for {timeout_s:.0f} s"
    except NetworkError as error:
        trace.error = error.message
    except (OSError, http.client.HTTPException) as error:
        trace.error = f"the line dropped: {web.hidden(str(error) or type(error).__name__)}"
    trace.end_s = time.perf_counter() - begun
    if trace.error:
        trace.error = web.hidden(trace.error)
    return trace


def _refused(refusal: Refused) -> Trace:
    return Trace(error=refusal.message)


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


@dataclass(slots=True)
class Ollama:
    """Ollama's own API (docs/api.md of ollama/ollama)."""

    web: Web
    version: str | None = None
    api: Api = "ollama"
    kind: str = "ollama"
    rejected: set[str] = field(default_factory=set)

    def models(self) -> tuple[str, ...] | None:
        """Return the models it has."""
        return tuple(str(entry.get("name")) for entry in self._list("/api/tags"))

    def facts(self, model: str) -> ModelFacts:
        """Return what the lists of models, and of loaded ones, say."""
        listed = self._entry("/api/tags", model)
        loaded = self._entry("/api/ps", model)
        details = listed.get("details")
        details = details if isinstance(details, dict) else {}
        return ModelFacts(
            digest=_text(listed.get("digest")),
            quant=_text(details.get("quantization_level")),
            parameters=_text(details.get("parameter_size")),
            architecture=_text(details.get("family")),
            size_bytes=whole(listed.get("size")),
            loaded_bytes=whole(loaded.get("size")),
            vram_bytes=whole(loaded.get("size_vram")),
            context_tokens=whole(loaded.get("context_length")),
        )

    def file(self, model: str) -> str | None:
        """Return what the Modelfile of the model is made from."""
        try:
            text = str(self.web.ask("/api/show", {"model": model}).get("modelfile"))
        except Refused:
            return None
        return next((line[5:].strip() for line in text.splitlines() if line.startswith("FROM ")), None)

    def load(self, model: str, settings: Settings, timeout_s: float) -> Load:
        """Ask for nothing: that loads it."""
        cold = not self._entry("/api/ps", model)
        options = _given(num_ctx=settings.context_tokens)
        body = {"model": model, "keep_alive": KEEP_ALIVE, "stream": False, "options": options}
        begun = time.perf_counter()
        self.web.ask("/api/generate", body, timeout_s=timeout_s)
        return Load(cold, time.perf_counter() - begun, "ollama")

    def ask(self, model: str, prompt: str, settings: Settings, timeout_s: float, watch: Watch) -> Trace:
        """Ask through /api/chat."""
        options = _given(
            num_predict=settings.max_tokens,
            num_ctx=settings.context_tokens,
            temperature=settings.temperature,
            seed=settings.seed,
        )
        body = {"model": model, "messages": [_user(prompt)], "stream": True}
        body |= {"options": options, "keep_alive": KEEP_ALIVE}
        try:
            return _stream(self.web, "/api/chat", body, read_ollama, timeout_s, watch)
        except Refused as refusal:
            return _refused(refusal)

    def _list(self, path: str) -> list[dict[str, Any]]:
        entries = self.web.ask(path).get("models")
        return [entry for entry in entries or [] if isinstance(entry, dict)]

    def _entry(self, path: str, model: str) -> dict[str, Any]:
        return next((entry for entry in self._list(path) if same_model(str(entry.get("name")), model)), {})


@dataclass(slots=True)
class OpenAI:
    """Any server with /chat/completions: llama-server, vLLM, LM Studio, Ollama, DeepSeek's online API."""

    web: Web
    root: str = "/v1"
    """What stands before /chat/completions."""
    kind: str = "openai"
    version: str | None = None
    api: Api = "openai"
    rejected: set[str] = field(default_factory=set)

    def models(self) -> tuple[str, ...] | None:
        """Return the models it lists."""
        entries = self._list()
        return tuple(str(entry.get("id")) for entry in entries) if entries else None

    def facts(self, model: str) -> ModelFacts:
        """Return what llama-server says of the model it has; others say nothing."""
        if self.kind != "llama-server":
            return ModelFacts()
        meta = next((entry.get("meta") for entry in self._list()), None)
        meta = meta if isinstance(meta, dict) else {}
        n_parameters = whole(meta.get("n_params"))
        settings = self._props().get("default_generation_settings")
        return ModelFacts(
            quant=_text(meta.get("ftype")),
            parameters=None if n_parameters is None else str(n_parameters),
            size_bytes=whole(meta.get("size")),
            context_tokens=whole(settings.get("n_ctx")) if isinstance(settings, dict) else None,
        )

    def file(self, model: str) -> str | None:
        """Return what llama-server was started with."""
        return _text(self._props().get("model_path")) if self.kind == "llama-server" else None

    def load(self, model: str, settings: Settings, timeout_s: float) -> Load:
        """Ask for one token: that loads it, and takes the cold start out of the first answer."""
        begun = time.perf_counter()
        trace = self._ask(model, "Hi", settings, timeout_s, _unwatched, max_tokens=1)
        if trace.error:
            raise NetworkError(trace.error)
        return Load(None, time.perf_counter() - begun, "warm-up request")

    def ask(self, model: str, prompt: str, settings: Settings, timeout_s: float, watch: Watch) -> Trace:
        """Ask through /chat/completions."""
        try:
            return self._ask(model, prompt, settings, timeout_s, watch, max_tokens=settings.max_tokens)
        except Refused as refusal:
            return _refused(refusal)

    def _ask(
        self, model: str, prompt: str, settings: Settings, timeout_s: float, watch: Watch, *, max_tokens: int
    ) -> Trace:
        """Ask; what an old or strict server refuses is asked again without the fields it may not know."""
        body = self._body(model, prompt, settings, max_tokens)
        path = f"{self.root}/chat/completions"
        try:
            return _stream(self.web, path, body, read_openai, timeout_s, watch)
        except Refused as refusal:
            fewer = _without(body, refusal)
            if refusal.status not in (400, 422) or fewer == body:
                raise
        trace = _stream(self.web, path, fewer, read_openai, timeout_s, watch)
        self.rejected |= body.keys() - fewer.keys()
        return trace

    def _body(self, model: str, prompt: str, settings: Settings, max_tokens: int) -> dict[str, Any]:
        body = {"model": model, "messages": [_user(prompt)], "stream": True, "max_tokens": max_tokens}
        body |= _given(temperature=settings.temperature, seed=settings.seed)
        body["stream_options"] = {"include_usage": True}
        if self.kind == "llama-server":
            body["timings_per_token"] = True
            if settings.cache == "nonce":
                body["cache_prompt"] = False
        body = {name: value for name, value in body.items() if name not in self.rejected}
        if "max_tokens" in self.rejected:
            body["max_completion_tokens"] = max_tokens
        return body

    def _list(self) -> list[dict[str, Any]]:
        try:
            entries = self.web.ask(f"{self.root}/models").get("data")
        except Refused as refusal:
            if refusal.status in (401, 403):
                raise
            return []
        return [entry for entry in entries or [] if isinstance(entry, dict)]

    def _props(self) -> dict[str, Any]:
        try:
            return self.web.ask("/props")
        except Refused:
            return {}


@dataclass(slots=True)
class LMStudio:
    """LM Studio's own API since 0.4.0 (lmstudio-ai/docs 1_developer/2_rest; from documentation only)."""

    web: Web
    version: str | None = None
    api: Api = "lmstudio"
    kind: str = "lmstudio"
    rejected: set[str] = field(default_factory=set)

    def models(self) -> tuple[str, ...] | None:
        """Return the models it has."""
        return tuple(str(entry.get("key")) for entry in self._list())

    def facts(self, model: str) -> ModelFacts:
        """Return what the list of models says."""
        entry = self._entry(model)
        quant = entry.get("quantization")
        configs = [loaded.get("config") for loaded in _instances(entry)]
        config = next((config for config in configs if isinstance(config, dict)), {})
        return ModelFacts(
            quant=_text(quant.get("name")) if isinstance(quant, dict) else None,
            parameters=_text(entry.get("params_string")),
            architecture=_text(entry.get("architecture")),
            size_bytes=whole(entry.get("size_bytes")),
            context_tokens=whole(config.get("context_length")),
        )

    def file(self, model: str) -> str | None:
        """Return None: LM Studio does not say."""
        return None

    def load(self, model: str, settings: Settings, timeout_s: float) -> Load:
        """Load it, unless it is: loading again makes a second copy."""
        if _instances(self._entry(model)):
            return Load(False, 0.0, "lmstudio")
        body = _given(model=model, context_length=settings.context_tokens)
        begun = time.perf_counter()
        answer = self.web.ask("/api/v1/models/load", body, timeout_s=timeout_s)
        took = time.perf_counter() - begun
        return Load(True, positive(answer.get("load_time_seconds")) or took, "lmstudio")

    def ask(self, model: str, prompt: str, settings: Settings, timeout_s: float, watch: Watch) -> Trace:
        """Ask through /api/v1/chat; nothing is kept in LM Studio's list of chats."""
        body = {"model": model, "input": prompt, "stream": True, "store": False}
        body |= _given(max_output_tokens=settings.max_tokens, temperature=settings.temperature)
        body |= _given(context_length=settings.context_tokens)
        try:
            return _stream(self.web, "/api/v1/chat", body, read_lmstudio, timeout_s, watch)
        except Refused as refusal:
            return _refused(refusal)

    def _list(self) -> list[dict[str, Any]]:
        entries = self.web.ask("/api/v1/models").get("models")
        return [entry for entry in entries or [] if isinstance(entry, dict)]

    def _entry(self, model: str) -> dict[str, Any]:
        return next((entry for entry in self._list() if entry.get("key") == model), {})


def same_model(name: str, asked: str) -> bool:
    """Say whether Ollama's `name` is what was asked for: `latest` goes without saying."""
    return name.removesuffix(":latest").lower() == asked.removesuffix(":latest").lower()


def _without(body: dict[str, Any], refusal: Refused) -> dict[str, Any]:
    """Return the body without the field that the refusal names, else without all that can be left out."""
    if "max_completion_tokens" in refusal.text:  # OpenAI's newer models
        fewer = {name: value for name, value in body.items() if name != "max_tokens"}
        return fewer | {"max_completion_tokens": body.get("max_tokens")}
    named = [name for name in DROPPABLE if name in refusal.text]
    return {name: value for name, value in body.items() if name not in (named or DROPPABLE)}


def _instances(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    loaded = entry.get("loaded_instances")
    return [item for item in loaded if isinstance(item, dict)] if isinstance(loaded, list) else []


def _user(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": prompt}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _unwatched(trace: Trace) -> None:
    pass
