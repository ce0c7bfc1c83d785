"""Questions asked of a replayed stream."""

from __future__ import annotations

from dataclasses import replace

from ggufkit.bench.address import open_client
from ggufkit.bench.clients import Client
from ggufkit.bench.questions import FIVE, Question
from ggufkit.bench.result import Api, Run, Settings
from ggufkit.verbs.bench import make_run
from tests.support.replay import Replay, Reply, Route, json_reply, run_replay

SETTINGS = Settings(
    max_tokens=4096,
    temperature=0.0,
    seed=None,
    context_tokens=None,
    n_repeats=1,
    n_concurrent=1,
    cache="nonce",
)
COMPARE = FIVE["en"][1]
CHAT = {"ollama": "/api/chat", "openai": "/v1/chat/completions", "lmstudio": "/api/v1/chat"}
OLLAMA: dict[str, Route] = {
    "/api/version": json_reply({"version": "0.5.4"}),
    "/api/tags": json_reply({"models": [{"name": "smol:latest", "digest": "ab" * 32, "size": 7}]}),
    "/api/ps": json_reply({"models": []}),
    "/api/generate": json_reply({"model": "smol", "response": "", "done": True, "done_reason": "load"}),
}
LLAMA: dict[str, Route] = {
    "/props": json_reply({"build_info": "b1-abc", "default_generation_settings": {"n_ctx": 2048}}),
    "/v1/models": json_reply({"data": [{"id": "smol", "meta": {"size": 9, "n_params": 134515008}}]}),
}


def ask(
    reply: Route,
    api: Api = "openai",
    *,
    llama: bool = False,
    timeout_s: float = 5.0,
    settings: Settings = SETTINGS,
) -> Run:
    """Ask a server that answers with `reply`, and return what that amounts to."""
    return asked(reply, api, llama=llama, timeout_s=timeout_s, settings=settings)[0]


def asked(
    reply: Route,
    api: Api = "openai",
    *,
    llama: bool = False,
    timeout_s: float = 5.0,
    settings: Settings = SETTINGS,
    question: Question = COMPARE,
) -> tuple[Run, Client, Replay]:
    """Do the same; return the client and the server too."""
    base = LLAMA if llama else OLLAMA if api == "ollama" else {}
    with run_replay({**base, CHAT[api]: reply}) as server:
        client = open_client(server.url, api, {})
        trace = client.ask("smol", question.text, settings, timeout_s, lambda _: None)
        nonce = "#1" if settings.cache == "nonce" else ""
        return make_run(trace, client, question, settings, 1, 1, "now", nonce), client, server


def as_is() -> Settings:
    """Return settings with caches allowed."""
    return replace(SETTINGS, cache="as-is")


def slow(reply: Reply, seconds: float) -> Reply:
    """Return the answer, everything later by `seconds`."""
    return replace(reply, lines=tuple((at + seconds, line) for at, line in reply.lines))
