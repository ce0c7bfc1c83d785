"""Where a server is, what it speaks, which key and which proxy it gets."""

from __future__ import annotations

import pytest

from ggufkit.bench.address import open_client, split_url
from ggufkit.bench.web import Refused, Web
from ggufkit.errors import NetworkError, UsageError
from tests.bench.asking import LLAMA, OLLAMA
from tests.support.replay import Reply, json_reply, run_replay


@pytest.mark.parametrize(
    ("url", "base", "root"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434", "/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", "/v1"),
        (" http://h:1/v1/ ", "http://h:1", "/v1"),
        ("http://h:1/v1/chat/completions", "http://h:1", "/v1"),
        ("http://h:1/api/chat", "http://h:1", "/v1"),
        ("http://[::1]:5/api", "http://[::1]:5", "/v1"),
        ("https://api.deepseek.com", "https://api.deepseek.com", "/v1"),
        ("https://h/compatible-mode/v1", "https://h/compatible-mode", "/v1"),
        ("https://h/api/paas/v4", "https://h/api/paas", "/v4"),
        ("https://user:secret@h/v1?key=secret#x", "https://h", "/v1"),
    ],
)
def test_addresses_with_or_without_v1(url: str, base: str, root: str) -> None:
    assert split_url(url) == (base, root)


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://h:99999", "http://h:x", "file:///etc/passwd"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        split_url(url)


def test_the_api_is_found_out_by_asking() -> None:
    with run_replay(OLLAMA) as server:
        client = open_client(server.url + "/v1", None, {})
        assert (client.api, client.kind, client.version) == ("ollama", "ollama", "0.5.4")
        forced = open_client(server.url, "openai", {})
        assert (forced.api, forced.kind, forced.version) == ("openai", "ollama", "0.5.4")
        here = open_client(None, None, {"OLLAMA_HOST": server.url})
        assert here.web.base == server.url
    with run_replay({"/lmstudio-greeting": json_reply({"lmstudio": True})}) as server:
        assert open_client(server.url, None, {}).api == "lmstudio"
    with run_replay(LLAMA) as server:
        client = open_client(server.url, None, {})
        assert (client.api, client.kind) == ("openai", "llama-server")
    with run_replay({}) as server:
        client = open_client(server.url, None, {})
        assert (client.api, client.kind) == ("openai", "openai")
    with pytest.raises(UsageError, match="needs an address"):
        open_client(None, "openai", {})


def test_a_gateway_that_reaches_nobody_is_not_taken_for_a_server() -> None:
    bad = json_reply({"error": "no upstream"}, 502)
    with (
        run_replay({"/api/version": bad}) as server,
        pytest.raises(NetworkError, match="answered 502: no upstream"),
    ):
        open_client(server.url, None, {})


KEYS = {
    "OPENAI_API_KEY": "k-openai",
    "DEEPSEEK_API_KEY": "k-deepseek",
    "OLLAMA_API_KEY": "k-ollama",
    "LM_API_TOKEN": "k-lm",
}


@pytest.mark.parametrize("api", ["ollama", "openai"])
def test_keys_of_others_stay_at_home(api: str) -> None:
    assert api in ("ollama", "openai")
    with run_replay({**OLLAMA, **LLAMA}) as server:
        client = open_client(server.url, api, KEYS)  # type: ignore[arg-type]
        client.models()
        assert client.web.key is None
        assert all("Authorization" not in asked.headers for asked in server.asked)
        client = open_client(server.url, api, KEYS | {"GGUFKIT_API_KEY": "k-any"})  # type: ignore[arg-type]
        client.models()
        assert server.asked[-1].headers["Authorization"] == "Bearer k-any"


def test_lmstudio_gets_its_own_key() -> None:
    with run_replay({}) as server:
        assert open_client(server.url, "lmstudio", KEYS).web.key == "k-lm"


def test_others_are_asked_through_the_proxy_this_machine_never(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_replay({"http://bench.example/api/version": json_reply({"version": "1"})}) as proxy:
        port = proxy.url.rpartition(":")[2]
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{port}")
        assert Web("http://bench.example").ask("/api/version") == {"version": "1"}
        assert proxy.asked[0].headers["Proxy-Authorization"] == "Basic dXNlcjp3b3Jk"
        with run_replay({"/api/version": json_reply({"version": "2"})}) as server:
            assert Web(server.url).ask("/api/version") == {"version": "2"}
        assert len(proxy.asked) == 1
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(NetworkError, match="no HTTP proxy"):
        Web("http://bench.example").ask("/api/version")


@pytest.mark.parametrize("document", [[], 7, "x"])
def test_an_answer_that_is_no_object_is_refused(document: object) -> None:
    with run_replay({"/x": json_reply(document)}) as server, pytest.raises(Refused, match="not a JSON"):
        Web(server.url).ask("/x")


def test_a_server_that_says_nothing() -> None:
    silent = Reply((), hang_s=2.0)
    with run_replay({"/x": silent}) as server, pytest.raises(NetworkError, match="said nothing"):
        Web(server.url).ask("/x", timeout_s=0.3)
