"""Names of repos as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import GgufkitError, UsageError
from ggufkit.hubs.hub import HubName, RepoRef, is_ref, parse_ref
from ggufkit.hubs.refs import check_repo_id, check_revision

HF: HubName = "huggingface"
MS: HubName = "modelscope"
R1 = "unsloth/DeepSeek-R1-GGUF"


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        (R1, RepoRef(None, R1, None, None)),
        (f" {R1}\n", RepoRef(None, R1, None, None)),
        (f"hf:{R1}", RepoRef(HF, R1, None, None)),
        (f"hf://{R1}", RepoRef(HF, R1, None, None)),
        (f"ms:{R1}", RepoRef(MS, R1, None, None)),
        (f"{R1}:UD-IQ2_XXS", RepoRef(None, R1, None, "UD-IQ2_XXS")),
        (f"ms:{R1}@master:UD-IQ2_XXS", RepoRef(MS, R1, "master", "UD-IQ2_XXS")),
        (f"{R1}@refs/pr/1", RepoRef(None, R1, "refs/pr/1", None)),
        (f"{R1}@v1.0:a b/c.gguf", RepoRef(None, R1, "v1.0", "a b/c.gguf")),
        (f"{R1}:DeepSeek-R1-Q4_K_M/x.gguf", RepoRef(None, R1, None, "DeepSeek-R1-Q4_K_M/x.gguf")),
        ("dranger003/x-iMat.GGUF", RepoRef(None, "dranger003/x-iMat.GGUF", None, None)),
        ("hf:o/x.gguf", RepoRef(HF, "o/x.gguf", None, None)),
        ("_o/n", RepoRef(None, "_o/n", None, None)),
        (f"https://huggingface.co/{R1}", RepoRef(HF, R1, None, None)),
        (f"HTTPS://HuggingFace.co/{R1}/", RepoRef(HF, R1, None, None)),
        (f"https://huggingface.co/{R1}/tree", RepoRef(HF, R1, None, None)),
        (f"https://huggingface.co/{R1}/tree/main", RepoRef(HF, R1, "main", None)),
        (f"https://huggingface.co/{R1}/tree/main/UD-Q2_K_XL", RepoRef(HF, R1, "main", "UD-Q2_K_XL")),
        (f"https://huggingface.co/{R1}/blob/main/a/b.gguf", RepoRef(HF, R1, "main", "a/b.gguf")),
        (f"https://huggingface.co/{R1}/blob/main/README.md", RepoRef(HF, R1, "main", None)),
        (f"https://huggingface.co/{R1}/resolve/main/b.gguf?download=true", RepoRef(HF, R1, "main", "b.gguf")),
        (f"https://huggingface.co/{R1}/tree/refs%2Fpr%2F1/UD", RepoRef(HF, R1, "refs/pr/1", "UD")),
        (f"https://huggingface.co/{R1}/tree/refs/pr/1/UD", RepoRef(HF, R1, "refs/pr/1", "UD")),
        (f"https://huggingface.co/{R1}/discussions/18", RepoRef(HF, R1, None, None)),
        (f"https://huggingface.co/{R1}?show_file_info=x.gguf#files", RepoRef(HF, R1, None, None)),
        (f"hf.co/{R1}:Q4_K_M", RepoRef(HF, R1, None, "Q4_K_M")),
        (f"https://hf-mirror.com/{R1}", RepoRef(HF, R1, None, None)),
        (f"https://modelscope.cn/models/{R1}", RepoRef(MS, R1, None, None)),
        (f"https://www.modelscope.cn/models/{R1}/files", RepoRef(MS, R1, None, None)),
        (f"https://modelscope.cn/models/{R1}/summary", RepoRef(MS, R1, None, None)),
        (f"https://modelscope.cn/models/{R1}/file/view/v1/a%2Fb.gguf?x", RepoRef(MS, R1, "v1", "a/b.gguf")),
        (f"https://modelscope.cn/models/{R1}/resolve/master/a/b.gguf", RepoRef(MS, R1, "master", "a/b.gguf")),
        (f"modelscope.cn/{R1}:Q4_K_M", RepoRef(MS, R1, None, "Q4_K_M")),
    ],
)  # fmt: skip
def test_refs(text: str, ref: RepoRef) -> None:
    assert parse_ref(text) == ref
    assert is_ref(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "x.gguf", "./x", "./owner/name", "../owner/name", "/owner/name", "~/name", "a/b.gguf", "a/b/c",
        r"C:\m\x.gguf", "C:/models/x", r"owner\name", "owner", "owner/", "/name", "owner/..", "owner/a..b",
        "-owner/name", "owner/name.", "owner/name:", "owner/name@", "owner/name@../x", "owner/name@a b",
        "owner/name:a:b", "owner/n\x00ame", "owner/name:\x1b", "ollama.com/library/x", "o/" + "n" * 97,
    ],
)  # fmt: skip
def test_what_is_no_ref(text: str) -> None:
    assert not is_ref(text)
    with pytest.raises(UsageError) as caught:
        parse_ref(text)
    assert "unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "hf:name", "ms:", "https://example.org/o/n", "https://huggingface.co/datasets/o/n",
        "https://huggingface.co/o", "https://huggingface.co/", "https://huggingface.co/o/n/tree/../x",
        "https://modelscope.cn/models", "ms:owner/..",
    ],
)  # fmt: skip
def test_what_was_meant_as_a_ref_and_is_none(text: str) -> None:
    assert is_ref(text)  # so that the error is about the ref, not about a missing file
    with pytest.raises(UsageError):
        parse_ref(text)


def test_what_is_on_disk_is_no_ref(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_ref("owner/name")
    Path("owner/name").mkdir(parents=True)
    assert not is_ref("owner/name")
    assert is_ref("hf:owner/name")
    assert is_ref("owner/name:" + "q" * 400)  # longer than a file name may be


@given(st.text())
def test_any_text_is_a_ref_or_an_error(text: str) -> None:
    try:
        ref = parse_ref(text)
    except GgufkitError as error:
        assert error.exit_code == 2
        assert error.message.isprintable()
    else:
        assert check_repo_id(ref.repo_id) == ref.repo_id


@pytest.mark.parametrize(
    "repo_id", ["a/b?x=1", "a/../b", "a/b/c", "a", "hf:a/b", "a/b@main", "a/b:q", "a/b#"]
)
def test_what_can_not_stand_in_a_url_is_no_repo_id(repo_id: str) -> None:
    with pytest.raises(UsageError):
        check_repo_id(repo_id)


def test_revisions() -> None:
    assert check_revision("refs/pr/1") == "refs/pr/1"
    for revision in ("", "../x", "a..b", "a b", "-x", "a?b"):
        with pytest.raises(UsageError):
            check_revision(revision)
