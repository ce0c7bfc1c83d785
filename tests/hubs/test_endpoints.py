"""Where the hubs are, and who may see a token."""

from __future__ import annotations

import pytest

from ggufkit.errors import UsageError
from ggufkit.hubs.endpoints import endpoint_of, may_see_token, page_url, title_of
from ggufkit.hubs.hub import HubName

HF: HubName = "huggingface"
MS: HubName = "modelscope"
VARIABLES = ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "GGUFKIT_TOKEN_HOSTS")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_argument_goes_before_the_environment_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint_of(HF) == "https://huggingface.co"
    assert endpoint_of(MS) == "https://modelscope.cn"
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "www.modelscope.ai")
    assert endpoint_of(HF) == "https://hf-mirror.com"
    assert endpoint_of(MS) == "https://www.modelscope.ai"
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "modelscope.cn")
    assert endpoint_of(MS) == "https://modelscope.cn"
    assert endpoint_of(HF, "http://127.0.0.1:8900/hf/") == "http://127.0.0.1:8900/hf"
    monkeypatch.setenv("HF_ENDPOINT", " ")
    assert endpoint_of(HF) == "https://huggingface.co"


@pytest.mark.parametrize(
    "text",
    ["ftp://x", "https://", "https://user:secret@x", "http://x:port", "http://x:0", "http://x y", "http://x?a=b",
     "file:///etc", "http://[::1", "http://x#y"],
)  # fmt: skip
def test_what_is_no_address(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the endpoint"):
        endpoint_of(HF, text)
    monkeypatch.setenv("HF_ENDPOINT", text)
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        endpoint_of(HF)


@pytest.mark.parametrize(
    ("hub", "endpoint", "may"),
    [
        (HF, "https://huggingface.co", True),
        (HF, "https://huggingface.co:443", True),
        (HF, "http://huggingface.co", False),  # in the clear
        (HF, "https://huggingface.co:8443", False),
        (HF, "https://hf-mirror.com", False),
        (HF, "https://huggingface.co.example.org", False),
        (HF, "https://modelscope.cn", False),
        (HF, "http://127.0.0.1:8900", False),
        (MS, "https://modelscope.cn", True),
        (MS, "https://www.modelscope.ai", True),
        (MS, "https://huggingface.co", False),
    ],
)
def test_a_token_goes_to_its_own_hub_only(hub: HubName, endpoint: str, may: bool) -> None:
    assert may_see_token(hub, endpoint) is may


def test_the_user_may_trust_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "hub.corp.example, 127.0.0.1:8900")
    assert may_see_token(HF, "https://hub.corp.example")
    assert may_see_token(HF, "http://127.0.0.1:8900")
    assert not may_see_token(HF, "http://127.0.0.1:8901")
    assert not may_see_token(HF, "https://hf-mirror.com")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "")
    assert not may_see_token(HF, "https://hub.corp.example")


def test_names_for_people() -> None:
    assert title_of(HF, "https://huggingface.co") == "Hugging Face"
    assert title_of(HF, "https://hf-mirror.com") == "Hugging Face at hf-mirror.com"
    assert page_url(HF, "https://huggingface.co", "o/n") == "https://huggingface.co/o/n"
    assert page_url(MS, "https://modelscope.cn", "o/n") == "https://modelscope.cn/models/o/n"
