"""`ggufkit fit` at the prompt: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli import fit as module
from ggufkit.cli.main import run
from ggufkit.fit.cells import CACHE_TYPES
from tests.support.ggufs import make_gguf, r1_shaped, r1_shards
from tests.support.hub import FOLDER, REPO_ID, run_hub

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Fit = Callable[..., Ran]


@pytest.fixture
def fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fit:
    """Run the command in an empty folder, with a home of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def fit(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run(["fit", *map(str, arguments)])
        return Ran(code, *capsys.readouterr())

    return fit


@pytest.fixture
def old_r1(tmp_path: Path) -> Path:
    return r1_shaped(tmp_path / "R1.gguf")


def test_old_r1_on_256_gib(fit: Fit, old_r1: Path) -> None:
    ran = fit(old_r1, "--ram", "256G")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("R1: deepseek2, 671.0B parameters, 1 file of ")
    assert lines[1] == "memory: 256.0 GiB (274.9 GB), given"
    assert lines[2].startswith("fits: takes ")
    assert "with 4,096 tokens of context (the default; --ctx-size for another)" in lines[2]
    assert "19.1 GiB (20.5 GB)  exact" in ran.out
    assert "kernel 4.0 GiB, system 12.8 GiB\n" in ran.out
    assert "compute buffer" in ran.out
    assert "a token of context takes 4,997,120 bytes" in ran.out
    rows = [line.lstrip().split("  ") for line in lines]
    verdicts = {row[0]: row[-1] for row in rows if row[0] in ("4,096", "32,768", "163,840")}
    assert verdicts == {"4,096": "fits", "32,768": "pages from SSD", "163,840": "does not fit"}
    assert ran.err.startswith("warning: this file was made before llama.cpp learnt MLA")
    assert "71 times the 70,272" in ran.err


def test_mla_r1_has_no_warning(fit: Fit, tmp_path: Path) -> None:
    ran = fit(r1_shaped(tmp_path / "mla.gguf", mla=True), "--ram", "256G", "--ctx-size", 32768)
    assert (ran.code, ran.err) == (0, "")
    assert "a token of context takes 70,272 bytes" in ran.out
    assert "the longest context that fits: 163,840 tokens" in ran.out


def test_after_a_merge_no_model_is_named(fit: Fit) -> None:
    r1_shaped(Path("DeepSeek-R1-UD-IQ2_XXS.gguf"))
    r1_shards(Path("UD-IQ2_XXS"))
    ran = fit("--ram", "256G")
    assert ran.code == 0
    assert ran.err.startswith("model: DeepSeek-R1-UD-IQ2_XXS.gguf\n")
    assert ran.out.startswith("DeepSeek-R1-UD-IQ2_XXS: deepseek2")


def test_a_set_of_shards_is_one_model(fit: Fit, tmp_path: Path) -> None:
    shards = r1_shards(tmp_path / "set")
    ran = fit(shards[1], "--ram", "256G", "--json")
    assert ran.json["n_files"] == len(shards)
    assert ran.json["file_bytes"] == sum(path.stat().st_size for path in shards)


@pytest.mark.parametrize(("ram", "word"), [("256G", "fits"), ("64G", "pages"), ("16GiB", "no")])
def test_quiet_prints_the_verdict(fit: Fit, old_r1: Path, ram: str, word: str) -> None:
    assert fit(old_r1, "--ram", ram, "-q") == Ran(0, f"{word}\n", "")


@pytest.mark.parametrize(("context", "code"), [(4096, 0), (13568, 0), (32768, 8), (163840, 8)])
def test_check_exits_with_8(fit: Fit, old_r1: Path, context: int, code: int) -> None:
    ran = fit(old_r1, "--ram", "256G", "-c", context, "--check")
    assert ran.code == code
    assert ran.out.startswith("R1: ")
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (1 if code else 0)
    if code:
        assert "of 256.0 GiB (274.9 GB)" in errors[0]
        assert "hint: it fits with a newer upload of the same quant" in ran.err


def test_check_and_json_go_together(fit: Fit, old_r1: Path) -> None:
    ran = fit(old_r1, "--ram", "64G", "--check", "--json")
    assert ran.code == 8
    assert ran.json["verdict"]["level"] == "pages"


def test_what_is_unknown_does_not_pass_the_check(fit: Fit, tmp_path: Path) -> None:
    model = make_gguf(tmp_path / "odd.gguf", kv={"llama.attention.head_count": None})
    ran = fit(model, "--ram", "8G", "--check")
    assert ran.code == 8
    assert "KV cache" in ran.out and "unknown" in ran.out
    assert "error: whether odd fits is unknown: takes at least 0.7 MiB (0.8 MB) of 8.0 GiB" in ran.err


def test_json_is_the_report(fit: Fit, old_r1: Path) -> None:
    report = fit(old_r1, "--ram", "256G", "--json").json
    assert list(report)[:3] == ["schema", "name", "n_files"]
    assert report["schema"] == 1
    assert report["machine"] == {"ram_bytes": 256 * GIB, "available_bytes": None, "source": "given"}
    weights, cache, compute, output = report["estimate"]["terms"]
    assert (weights["name"], cache["name"]) == ("weights", "KV cache")
    assert cache["n_bytes"] == 4096 * 4_997_120
    assert cache["certainty"] == "exact"
    assert "deepseek2.attention.head_count_kv" in cache["keys"]
    parts = [term["n_bytes"] for term in (weights, cache, compute, output)]
    names = ["weights_bytes", "kv_cache_bytes", "compute_bytes", "output_bytes", "total_bytes"]
    assert [report["estimate"][name] for name in names] == [*parts, sum(parts)]
    (cpu,) = report["estimate"]["devices"]
    assert cpu == {"name": "CPU", "memory_bytes": None} | {name: report["estimate"][name] for name in names}
    assert report["context_is_default"] is True
    assert [row["context_tokens"] for row in report["contexts"]] == [2048, 4096, 8192, 32768, 163840]


def test_settings_reach_the_estimate(fit: Fit, old_r1: Path) -> None:
    options = ["--parallel", 2, "--cache-type-k", "q8_0", "--cache-type-v", "q4_0", "--ubatch-size", 1024]
    options += ["--batch-size", 4096]
    ran = fit(old_r1, "--ram", "256G", "-c", 8192, "--json", "--kv-unified", "--swa-full", *options)
    assert ran.json["estimate"]["settings"] == {
        "context_tokens": 8192,
        "n_sequences": 2,
        "n_ubatch_tokens": 1024,
        "cache_type_k": "q8_0",
        "cache_type_v": "q4_0",
        "unified": True,
        "swa_full": True,
        "n_batch_tokens": 4096,
        "flash": True,
        "n_outputs": None,
        "mixed_inputs": True,
        "prompt_cache_bytes": 0,
        "n_checkpoints": 0,
        "offload": None,
        "isa": "avx512",
    }
    assert ran.json["reserve"]["compute_bytes"] == 0


def test_a_runtime_has_its_own_defaults(fit: Fit, old_r1: Path) -> None:
    ran = fit(old_r1, "--ram", "256G", "--runtime", "ollama@0.5", "--flash-attn", "off", "--no-kv-offload")
    assert "with 8,192 tokens of context for 4 texts together (the default of ollama;" in ran.out
    assert "no flash attention" in ran.out
    bench = fit(old_r1, "--ram", "256G", "--runtime", "llama-bench", "--json").json
    assert (bench["runtime"], bench["estimate"]["context_tokens"]) == ("llama-bench 10435", 512)
    assert bench["estimate"]["settings"]["n_outputs"] == 2048
    server = fit(old_r1, "--ram", "256G", "--runtime", "llama-server", "-c", 4096)
    assert "may grow later, not counted: prompt cache up to 8.0 GiB" in server.out


def test_explain_shows_every_term_with_its_keys(fit: Fit, old_r1: Path) -> None:
    out = fit(old_r1, "--ram", "256G", "--explain", "--runtime", "llama-server", "-c", 4096).out
    assert f"KV cache: {4096 * 4_997_120:,} bytes (exact)\n" in out
    assert "  from deepseek2.block_count, deepseek2.attention.head_count_kv" in out
    assert "compute buffer: " in out and "  feed-forward: " in out and "  experts: " in out
    assert "prompt cache, later: up to 8,589,934,592 bytes" in out


def test_several_texts_share_the_context(fit: Fit, old_r1: Path) -> None:
    out = fit(old_r1, "--ram", "256G", "--parallel", 2).out
    assert "4,096 tokens of context for 2 texts together" in out
    assert "for each of 2 sequences" in out


def test_verbose_names_the_keys(fit: Fit, old_r1: Path) -> None:
    err = fit(old_r1, "--ram", "256G", "-v").err
    assert "KV cache: from deepseek2.block_count, deepseek2.attention.head_count_kv" in err


def test_paging_says_how_much_stays(fit: Fit, old_r1: Path) -> None:
    ran = fit(old_r1, "--ram", "128G")
    assert "of the weights stay in memory" in ran.out
    assert "short " in ran.out
    assert "--no-repack" in ran.out


def test_this_machines_memory_is_the_default(fit: Fit, tmp_path: Path) -> None:
    model = make_gguf(tmp_path / "tiny.gguf")
    ran = fit(model)
    assert ran.code == 0
    assert "this machine's" in ran.out or "this control group's limit" in ran.out
    assert "1 file of 0.7 MiB (0.8 MB)" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--ram", "much"), 2, "write it like 256G or 256GiB"),
        (("--ctx-size", "-1"), 2, "is not in the range x>=0"),
        (("--parallel", "0"), 2, "is not in the range"),
        (("--cache-type-k", "q3_k"), 2, "is not one of"),
        (("--runtime", "llamafile"), 2, "no runtime is called llamafile"),
        (("--flash-attn", "off", "--cache-type-v", "q8_0"), 2, "only with flash attention"),
    ],
)
def test_wrong_options(fit: Fit, old_r1: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = fit(old_r1, *arguments)
    assert ran.code == code
    assert words in ran.err


def test_a_setting_that_llama_cpp_refuses(fit: Fit, tmp_path: Path) -> None:
    mla = r1_shaped(tmp_path / "mla.gguf", mla=True)
    ran = fit(mla, "--ram", "256G", "--cache-type-k", "q8_0")
    assert ran.code == 2
    assert "hint: --cache-type-k q8_0 --cache-type-v q8_0" in ran.err


def test_no_model_here(fit: Fit) -> None:
    ran = fit("--ram", "256G")
    assert ran.code == 3
    assert ran.err.startswith("error: no model in this folder")


def test_a_projector_is_no_model(fit: Fit, tmp_path: Path) -> None:
    ran = fit(make_gguf(tmp_path / "p.gguf", arch="clip"), "--ram", "8G")
    assert ran.code == 2
    assert "mmproj" in ran.err


def test_hostile_values_and_names(fit: Fit, tmp_path: Path) -> None:
    ran = fit(make_gguf(tmp_path / "h.gguf", kv={"llama.block_count": 4_000_000_000}), "--ram", "8G")
    assert ran.code == 7
    assert "key llama.block_count is 4000000000" in ran.err
    ran = fit(make_gguf(tmp_path / "ev\x1b[31mil.gguf"), "--ram", "8G")
    assert ran.code == 0
    assert ran.out.startswith("ev\\x1b[31mil: llama")


def test_a_model_on_a_hub_is_not_fetched(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    home.mkdir()
    paths = r1_shards(root / REPO_ID / FOLDER)
    digests = {str(path.relative_to(root)): f"{i:064x}" for i, path in enumerate(paths)}
    command = [sys.executable, "-m", "ggufkit", "fit", f"hf:{REPO_ID}", "--ram", "256G", "--json"]
    with run_hub(root, cdn=True, sha256s=digests) as hub:
        ran = subprocess.run(
            command, capture_output=True, text=True, env=hub.client_env(home), cwd=home, check=False
        )
        fetched_bytes = hub.sent_bytes(plane="cdn")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["estimate"]["kv_bytes_per_token"] == 4_997_120
    assert fetched_bytes < 5_500_000


def test_cache_types_are_those_of_the_library() -> None:
    assert set(module.CACHE_TYPES) == set(CACHE_TYPES)


def test_help_imports_no_arithmetic() -> None:
    code = (
        "import sys\nfrom ggufkit.cli.main import run\nrun(['fit', '--help'])\n"
        "slow = ('ggufkit.fit', 'ggufkit.hubs', 'numpy', 'gguf.')\n"
        "heavy = [m for m in sys.modules if m.startswith(slow)]\n"
        "assert not heavy, heavy\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "ggufkit fit --ram 256G" in ran.stdout
