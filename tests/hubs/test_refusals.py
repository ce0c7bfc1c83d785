"""Refusals in our words, and what to do about them."""

from __future__ import annotations

import pytest

from ggufkit.errors import AccessError, NetworkError, NotFoundError
from ggufkit.hubs.calls import PassingError
from ggufkit.hubs.refs import HubName
from ggufkit.hubs.refusals import file_refused, refused

HF, MS = "https://huggingface.co", "https://modelscope.cn"
MIRROR = "https://hf-mirror.com"


@pytest.mark.parametrize(
    ("status", "headers", "kind", "words"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, AccessError, "accepted the terms of o/n"),
        (401, {"x-error-code": "GatedRepo"}, AccessError, "accepted the terms of o/n"),
        (404, {"X-Error-Code": "RepoNotFound"}, NotFoundError, "has no repo o/n, or it is private"),
        (401, {}, NotFoundError, "no repo o/n"),
        (401, {"X-Error-Message": "Invalid credentials in header"}, AccessError, "not accept the token"),
        (404, {"X-Error-Code": "RevisionNotFound"}, NotFoundError, "no revision x in o/n"),
        (404, {"X-Error-Code": "EntryNotFound"}, NotFoundError, "no revision x in o/n"),
        (404, {}, NotFoundError, "no repo o/n with revision x"),
        (403, {}, AccessError, "does not let us read o/n (status 403)"),
        (429, {"Retry-After": "2"}, PassingError, "status 429"),
        (503, {}, PassingError, "status 503"),
        (418, {}, NetworkError, "status 418"),
    ],
)  # fmt: skip
def test_refusals_of_hugging_face(status: int, headers: dict[str, str], kind: type, words: str) -> None:
    error = refused("huggingface", HF, "o/n", status, headers, what="revision x")
    assert type(error) is kind
    assert words in error.message
    assert error.hint


def test_hints_of_refusals() -> None:
    gated = refused("huggingface", HF, "o/n", 403, {"X-Error-Code": "GatedRepo"})
    assert gated.hint == "accept them at https://huggingface.co/o/n, then set HF_TOKEN"
    gated = refused("modelscope", MS, "o/n", 403, {})
    assert gated.hint == "accept them at https://modelscope.cn/models/o/n, then set MODELSCOPE_API_TOKEN"
    assert "ms:o/n asks ModelScope" in (refused("huggingface", HF, "o/n", 503, {}).hint or "")
    assert "HF_ENDPOINT" in (refused("huggingface", HF, "o/n", 503, {}).hint or "")
    assert "hf:o/n asks Hugging Face" in (refused("modelscope", MS, "o/n", 503, {}).hint or "")
    assert isinstance(refused("modelscope", MS, "o/n", 401, {}), AccessError)


def test_a_mirror_is_shown_no_token_and_the_hint_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    gated = refused("huggingface", MIRROR, "o/n", 403, {"X-Error-Code": "GatedRepo"})
    assert gated.hint == (
        "accept them at https://huggingface.co/o/n; HF_TOKEN is not shown to hf-mirror.com: "
        "ask the hub itself, or trust it with GGUFKIT_TOKEN_HOSTS=hf-mirror.com"
    )
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "hf-mirror.com")
    gated = refused("huggingface", MIRROR, "o/n", 403, {"X-Error-Code": "GatedRepo"})
    assert gated.hint == "accept them at https://hf-mirror.com/o/n, then set HF_TOKEN"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "limits how often it is asked (status 429)"),
        ({"Retry-After": "7"}, "(status 429), for 7 s more"),
        ({"RateLimit": '"api";r=0;t=299'}, "(status 429), for 5 minutes more"),
    ],
)
@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_a_rate_limit_says_how_long_and_what_raises_it(
    hub: HubName, headers: dict[str, str], words: str
) -> None:
    error = refused(hub, {"huggingface": HF, "modelscope": MS}[hub], "o/n", 429, headers)
    assert isinstance(error, PassingError) and error.message.endswith(words)
    variable = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[hub]
    assert (error.hint or "").startswith(f"with {variable} set it allows more; ")
    assert variable not in (refused(hub, MIRROR, "o/n", 429, headers).hint or "")


@pytest.mark.parametrize(
    ("status", "headers", "kind", "words", "hint"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, AccessError, "accepted the terms of o/n", f"at {HF}/o/n, then"),
        (403, {"X-Error-Code": "GatedRepo"}, AccessError, "accepted the terms of o/n", "set HF_TOKEN"),
        (403, {}, AccessError, "Hugging Face refuses the file (403)", f"accept its terms at {HF}/o/n, then"),
        (404, {"X-Error-Code": "EntryNotFound"}, NotFoundError, "has no such file (404)", "renamed"),
        (404, {}, NotFoundError, "has no such file (404)", "another --source"),
        (401, {"X-Error-Code": "RepoNotFound"}, NotFoundError, "lists it in o/n", "renamed"),
    ],
)
def test_a_listed_file_that_can_not_be_had(
    status: int, headers: dict[str, str], kind: type, words: str, hint: str
) -> None:
    error = file_refused("huggingface", HF, "o/n", "a/b.gguf", status, headers)
    assert type(error) is kind and error.message.startswith("a/b.gguf: ")
    assert words in error.message and hint in (error.hint or "")


def test_the_page_of_modelscope_and_a_mirrors_refusal() -> None:
    error = file_refused("modelscope", MS, "o/n", "b.gguf", 403, {})
    assert f"{MS}/models/o/n, then set MODELSCOPE_API_TOKEN" in (error.hint or "")
    error = file_refused("huggingface", MIRROR, "o/n", "b.gguf", 403, {})
    assert "HF_TOKEN is not shown to hf-mirror.com" in (error.hint or "")
