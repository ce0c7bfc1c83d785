"""Which store is taken and why, and what Ollama is told of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.errors import ToolError
from ggufkit.gguf.model import model_info
from ggufkit.runtimes import ollama
from ggufkit.runtimes.ollama import default_folders, find_store, human_number, recipe, told_already
from ggufkit.runtimes.ollama_server import OllamaServer
from ggufkit.runtimes.ollama_store import Blob, SmallLayer, Store, StoredModel
from ggufkit.runtimes.ollama_templates import R1_STOP
from ggufkit.transfer.sources import open_header
from tests.runtimes.test_ollama_templates import CHATML_JINJA, R1_JINJA
from tests.support.ggufs import make_gguf

NOBODY = {"OLLAMA_HOST": "127.0.0.1:9"}
URL = "http://127.0.0.1:11434"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose store is the only one on this machine."""
    service = tmp_path / "service"
    monkeypatch.setattr(ollama, "default_folders", lambda home: (home / ".ollama" / "models", service))
    return tmp_path / ".ollama" / "models"


def running(monkeypatch: pytest.MonkeyPatch, store: Path | None, version: str = "0.9.3") -> OllamaServer:
    """Let an Ollama run that says its store is `store`."""
    server = OllamaServer(URL, version)
    monkeypatch.setattr(ollama, "find_server", lambda _host: server)
    monkeypatch.setattr(OllamaServer, "store", lambda _self: store)
    return server


def test_the_named_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    place = find_store(models_dir=Path("mine"), environ={"OLLAMA_MODELS": "/other"})
    assert (place.store.root, place.found_by, place.by_server) == (tmp_path / "mine", "--models-dir", False)
    assert place.server is not None


@pytest.mark.parametrize("text", ["/data/models", ' "/data/models" ', "'/data/models'"])
def test_the_variable_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    running(monkeypatch, tmp_path)
    place = find_store(environ={"OLLAMA_MODELS": text})
    assert (place.store.root, place.found_by) == (Path("/data/models"), "OLLAMA_MODELS")


def test_then_the_running_server_is_asked(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, tmp_path)
    place = find_store(environ={}, home=tmp_path)
    assert (place.store.root, place.found_by, place.by_server) == (tmp_path, URL, True)


def test_a_servers_folder_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, tmp_path / "root" / ".ollama" / "models")
    with pytest.raises(ToolError, match="container") as refusal:
        find_store(environ={}, home=tmp_path)
    assert "--models-dir" in str(refusal.value.hint)


def test_a_server_without_models_can_not_say(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, None)
    place = find_store(environ={}, home=tmp_path)
    assert (place.store.root, place.found_by) == (own, "default")
    assert "no model yet" in place.warnings[0]


def test_else_the_users_own(tmp_path: Path, own: Path) -> None:
    place = find_store(environ=NOBODY, home=tmp_path)
    assert (place.store.root, place.found_by, place.server, place.warnings) == (own, "default", None, ())
    assert not own.exists()


def test_a_services_store_when_it_is_the_only_one(tmp_path: Path, own: Path) -> None:
    (tmp_path / "service").mkdir()
    assert find_store(environ=NOBODY, home=tmp_path).store.root == tmp_path / "service"
    own.mkdir(parents=True)
    place = find_store(environ=NOBODY, home=tmp_path)
    assert place.store.root == own
    assert str(tmp_path / "service") in place.warnings[0]


def test_another_machines_ollama_is_told_of(tmp_path: Path, own: Path) -> None:
    place = find_store(environ={"OLLAMA_HOST": "192.0.2.1"}, home=tmp_path)
    assert "http://192.0.2.1:11434" in place.warnings[0]


def test_default_folders_begin_with_ones_own(tmp_path: Path) -> None:
    assert default_folders(tmp_path)[0] == tmp_path / ".ollama" / "models"


def told(
    tmp_path: Path,
    jinja: str | None,
    *,
    arch: str = "deepseek2",
    server: OllamaServer | None = None,
    file_type: int | None = 15,
) -> ollama.Recipe:
    kv = {"tokenizer.chat_template": jinja, "general.file_type": file_type}
    header = open_header(make_gguf(tmp_path / "m.gguf", arch=arch, kv=kv))
    return recipe(header, model_info([header]), "DeepSeek-R1-Q4_K_M", server)


def test_what_r1_is_told(tmp_path: Path) -> None:
    made = told(tmp_path, R1_JINJA, server=OllamaServer(URL, "0.9.3"))
    assert [layer.kind for layer in made.layers] == ["template", "license", "params"]
    stops = '","'.join(R1_STOP)
    assert made.layers[2].text == f'{{"stop":["{stops}"],"temperature":0.6,"top_p":0.95}}'
    assert dict(made.config) == {
        "model_format": "gguf",
        "model_family": "deepseek2",
        "model_families": ["deepseek2"],
        "model_type": "1.21M",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
    }
    assert made.warnings == ()


def test_an_assumed_version_is_told(tmp_path: Path) -> None:
    (warning,) = told(tmp_path, R1_JINJA).warnings
    assert "0.9" in warning
    assert told(tmp_path, CHATML_JINJA, arch="llama").warnings == (), (
        "one template for all versions: no doubt"
    )


@pytest.mark.parametrize(("version", "n"), [("0.9.3", 1), ("0.33.1", 0)])
def test_an_unknown_template_is_told_unless_ollama_renders_it(tmp_path: Path, version: str, n: int) -> None:
    made = told(tmp_path, "{{ messages }}", server=OllamaServer(URL, version))
    assert len(made.warnings) == n
    assert (made.family, made.layers) == (None, ())


def test_no_template_at_all_is_told(tmp_path: Path) -> None:
    (warning,) = told(tmp_path, None, server=OllamaServer(URL, "0.33.1")).warnings
    assert "no chat template" in warning


def test_a_quant_that_the_file_does_not_name(tmp_path: Path) -> None:
    assert told(tmp_path, None, file_type=None).config["file_type"] == "unknown"
    assert told(tmp_path, None, file_type=19).config["file_type"] == "IQ2_XXS"


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (671_026_404_352, "671.0B"),
        (7_000_000_000, "7B"),
        (7_615_616_512, "7.6B"),
        (134_515_008, "134.52M"),
        (2_000_000, "2M"),
        (687_616, "688K"),
        (999, "999"),
    ],
)
def test_numbers_as_ollama_shows_them(n: int, text: str) -> None:
    assert human_number(n) == text


@pytest.mark.parametrize(
    ("before", "same"), [(b'{"stop": 1, "num_ctx": 9}', True), (b"{", False), (b"[" * 99999, False)]
)
def test_parameters_that_are_broken_are_others(tmp_path: Path, before: bytes, same: bool) -> None:
    store, weights, there = Store(tmp_path), Blob("model", "a" * 64, 1), Blob("params", "b" * 64, 1)
    store.blob(there.sha256).parent.mkdir()
    store.blob(there.sha256).write_bytes(before)
    stored = StoredModel(tmp_path, b"", weights, (weights, there))
    ours = [SmallLayer("params", '{"stop": 1, "num_ctx": 7}')]
    assert told_already(store, stored, ours, but_memory=True) == same
