"""`ggufkit inspect` at the prompt: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli.inspect_text import parameters_text
from ggufkit.cli.main import run
from tests.gguf.hostile import CORPUS, Case
from tests.support.ggufs import make_gguf, make_shards, r1_shaped, r1_shards
from tests.support.hub import FOLDER, REPO_ID, run_hub

SHARDS = sorted((Path(__file__).parents[1] / "data" / "shards").glob("*.gguf"))
SET = str(SHARDS[0].parent)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


Inspect = Callable[..., Ran]


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Inspect:
    """Run the command in an empty folder, with a home of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def inspect(*arguments: object) -> Ran:
        capsys.readouterr()
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as main() does
        code = run(["inspect", *map(str, arguments)])
        return Ran(code, *capsys.readouterr())

    return inspect


def words(text: str) -> dict[str, str]:
    """Return the lines of the summary: label and what follows it."""
    lines = text.partition("\n\n")[0].splitlines()
    return {label.strip(): value for label, _, value in (line.partition("  ") for line in lines)}


# ---- for people ----


def test_the_summary_of_a_set(inspect: Inspect) -> None:
    ran = inspect(SHARDS[2])
    assert (ran.code, ran.err) == (0, "")
    facts = {label: value.strip() for label, value in words(ran.out).items()}
    assert facts["architecture"] == "llama"
    assert facts["parameters"] == "3.8M"
    assert facts["quant"] == "Q4_K_M, 5.13 bits per weight"
    assert facts["size"] == "2.3 MiB, 5 shards"
    assert facts["quantized by"] == "Unsloth"
    assert facts["chat template"] == "yes"
    assert facts["alignment"] == "32 bytes"
    assert facts["where"] == SET
    assert "TYPE  TENSORS  PARAMETERS" in ran.out and "ROLE       TENSORS" in ran.out


def test_the_summary_of_r1(inspect: Inspect, tmp_path: Path) -> None:
    ran = inspect(r1_shaped(tmp_path / "r1.gguf"))
    facts = {label: value.strip() for label, value in words(ran.out).items()}
    assert facts["parameters"] == "671.0B, 37.6B active"
    assert facts["experts"] == "256, 8 active, 1 shared"
    assert facts["layers"] == "61, the first 3 without experts"
    assert facts["context"] == "163,840 tokens (yarn: 40 times 4,096)"
    assert facts["imatrix"] == "DeepSeek-R1.imatrix, 720 entries, 124 chunks"
    assert facts["size"] == "183.1 GiB (196.7 GB), one file"
    assert facts["chat template"] == "none"
    assert "\nexperts " in ran.out and "IQ2_XXS Q2_K" in ran.out


def test_a_shard_alone(inspect: Inspect, tmp_path: Path) -> None:
    alone = tmp_path / SHARDS[1].name
    shutil.copy(SHARDS[1], alone)
    whole = inspect(alone)
    assert (whole.code, whole.out) == (7, "")
    assert "4 of 5 shards missing" in whole.err
    ran = inspect(alone, "--one-file")
    assert ran.code == 0
    assert "shard 2 of 5 alone" in ran.out
    assert "chat template" not in ran.out, "that is in shard 1"


def test_the_model_at_hand(inspect: Inspect, tmp_path: Path) -> None:
    nothing = inspect()
    assert (nothing.code, nothing.out) == (3, "")
    assert nothing.err.startswith("error: no model in this folder\nhint: ")
    make_gguf(tmp_path / "here" / "m.gguf")
    found = inspect("-q")
    assert found == Ran(0, "llama Q4_K_M\n", "")
    assert inspect().err == "model: m.gguf\n"


def test_warnings_are_on_stderr(inspect: Inspect, tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    with path.open("ab") as file:
        file.write(b"junk")
    assert inspect(path).err == "warning: 4 bytes behind the data\n"
    assert inspect(path, "-q").err == ""
    quiet = inspect(path, "--json")
    assert quiet.json["warnings"] == ["4 bytes behind the data"]
    assert quiet.err == "warning: 4 bytes behind the data\n"


def test_layers(inspect: Inspect) -> None:
    ran = inspect(SET, "--layers")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["LAYER", "TENSORS", "PARAMETERS", "SIZE", "BITS/WEIGHT", "TYPES"]
    assert [line.split()[0] for line in lines[1:]] == [f"blk.{i}" for i in range(6)]
    assert lines[1].split()[1:] == ["9", "590.3K", "367.2", "KiB", "5.10", "Q4_K", "Q6_K", "F32"]
    assert inspect(SET, "--layers", "-q").out.splitlines() == [f"blk.{i}" for i in range(6)]


def test_tensors(inspect: Inspect, tmp_path: Path) -> None:
    ran = inspect(SET, "--tensors", "blk.[01].ffn_down*")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "SHAPE", "SIZE", "SHARD"]
    assert [line.split()[0] for line in lines[1:]] == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    assert ran.err.startswith("2 of 57 tensors, ")
    assert len(inspect(SET, "--tensors", "-q").out.splitlines()) == 57
    whole = inspect(make_gguf(tmp_path / "m.gguf"), "--tensors", "output.weight")
    assert whole.out.splitlines()[0].split() == ["NAME", "TYPE", "SHAPE", "SIZE"], "no shards, no column"
    assert whole.out.splitlines()[1].split() == ["output.weight", "Q6_K", "[256,", "64]", "13.1", "KiB"]


@pytest.mark.parametrize("flag", ["--tensors", "--metadata"])
def test_a_path_after_a_flag_is_the_model(inspect: Inspect, tmp_path: Path, flag: str) -> None:
    """Click takes whatever follows for the pattern."""
    path = make_gguf(tmp_path / "m.gguf")
    assert inspect(flag, path, "-q") == inspect(path, flag, "-q")
    assert len(inspect(flag, path, "-q").out.splitlines()) >= 15
    missing = inspect(flag, "nope.gguf")
    assert (missing.code, missing.err.splitlines()[0]) == (3, "error: nope.gguf: no such file")


def test_metadata(inspect: Inspect) -> None:
    ran = inspect(SET, "--metadata")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in ran.out.splitlines()[1:]}
    assert rows["general.architecture"] == ["string", "llama"]
    assert rows["llama.block_count"] == ["uint32", "6"]
    assert rows["llama.attention.layer_norm_rms_epsilon"] == ["float32", "1e-05"]
    kind, value = rows["tokenizer.ggml.tokens"]
    assert (kind, value.endswith("and 508 more")) == ("string[512]", True)
    assert inspect(SET, "--metadata", "general.ar", "-q").out == "general.architecture\n"


def test_long_values_are_short_in_the_list_and_whole_by_key(inspect: Inspect, tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", kv={"general.description": "word " * 100, "k" * 200: 1})
    ran = inspect(path, "--metadata")
    assert "… (500 characters)" in ran.out
    assert max(map(len, ran.out.splitlines())) < 220
    assert inspect(path, "--key", "general.description").out == "word " * 100 + "\n"


# ---- raw values ----


def test_an_array_is_one_element_a_line(inspect: Inspect, tmp_path: Path) -> None:
    path = make_gguf(
        tmp_path / "m.gguf", kv={"t.words": ["a", "b c", "\n", "\x1b[2J", ""], "t.flags": [True]}
    )
    assert inspect(path, "--key", "t.words").out == "a\nb c\n\\n\n\\x1b[2J\n\n"
    assert inspect(path, "--key", "t.words", "--json").json["value"] == ["a", "b c", "\n", "\x1b[2J", ""]
    assert inspect(path, "--key", "t.flags").out == "true\n"
    assert len(inspect(SET, "--key", "tokenizer.ggml.tokens").out.splitlines()) == 512


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-6, "1e-06"),
        (10_000.0, "10000"),
        (0.1, "0.1"),
        (16777217.0, "16777216"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (True, "true"),
        (-5, "-5"),
        (1 << 63, "9223372036854775808"),
    ],
)
def test_numbers(inspect: Inspect, tmp_path: Path, value: object, text: str) -> None:
    ran = inspect(make_gguf(tmp_path / "m.gguf", kv={"t.x": value}), "--key", "t.x")
    assert (ran.out, ran.code) == (f"{text}\n", 0)


@pytest.mark.parametrize(
    ("template", "text", "n_escaped"),
    [
        ("{{ a }}\n\t{{ b }}", "{{ a }}\n\t{{ b }}\n", 0),
        ("ends with a newline\n", "ends with a newline\n", 0),
        ("<｜User｜>\u3000▁\u200d\xa0é", "<｜User｜>\u3000▁\u200d\xa0é\n", 0),
        ("a\r\nb", "a\r\nb\n", 0),
        ("safe\rpwned", "safe\\rpwned\n", 1),
        ("\x1b]0;title\x07\x9b31m\x00", "\\x1b]0;title\\x07\\x9b31m\\x00\n", 4),
        ("\u202eright to left\u2066", "\\u202eright to left\\u2066\n", 2),
        ("{{ 1/0 }}{% include '/etc/passwd' %}", "{{ 1/0 }}{% include '/etc/passwd' %}\n", 0),
    ],
)
def test_a_template_is_raw_but_drives_no_terminal(
    inspect: Inspect, tmp_path: Path, template: str, text: str, n_escaped: int
) -> None:
    path = make_gguf(tmp_path / "m.gguf", kv={"tokenizer.chat_template": template})
    ran = inspect(path, "--template")
    assert ran.out == text
    assert ran.err.startswith(f"warning: {n_escaped} control character") if n_escaped else ran.err == ""
    assert inspect(path, "--template", "-q").out == text
    exact = inspect(path, "--template", "--json").json
    assert (exact["key"], exact["value"]) == ("tokenizer.chat_template", template)


def test_hostile_text_is_escaped_everywhere(inspect: Inspect, tmp_path: Path) -> None:
    kv = {"general.name": "\x1b[31mred\nsecond", "general.quantized_by": "\x07" * 5000}
    path = make_gguf(tmp_path / "m.gguf", kv=kv)
    for arguments in ([], ["--metadata"], ["--key", "general.name"]):
        out = inspect(path, *arguments).out
        assert "\\x1b[31mred" in out and "\x1b" not in out and "\x07" not in out
        assert len(out) < 5000


# ---- for scripts ----


def test_json_is_one_document_of_schema_1(inspect: Inspect) -> None:
    document = inspect(SET, "--json").json
    assert document["schema"] == 1
    assert list(document) == [
        "schema", "name", "where", "n_bytes", "files", "split", "model", "rope", "imatrix", "tokenizer",
        "statistics", "metadata", "tensors", "warnings",
    ]  # fmt: skip
    assert document["tensors"] is None
    assert document["statistics"]["by_type"][0] == {
        "name": "Q4_K", "n_tensors": 31, "n_parameters": 2_686_976, "n_bytes": 1_511_424,
        "bits_per_weight": 4.5, "types": ["Q4_K"],
    }  # fmt: skip
    metadata = {entry["key"]: entry for entry in document["metadata"]}
    assert metadata["tokenizer.ggml.tokens"] == {
        "key": "tokenizer.ggml.tokens", "type": "ARRAY", "element_type": "STRING", "n_elements": 512,
        "value": None,
    }  # fmt: skip
    assert metadata["split.count"]["value"] == 5


def test_json_with_all_arrays_and_tensors(inspect: Inspect) -> None:
    document = inspect(SET, "--json", "--all", "--tensors", "outpu?.weight").json
    metadata = {entry["key"]: entry["value"] for entry in document["metadata"]}
    assert len(metadata["tokenizer.ggml.tokens"]) == 512
    assert [row["name"] for row in document["tensors"]] == ["output.weight"]
    only = inspect(SET, "--json", "--metadata", "general.arch").json
    assert [entry["key"] for entry in only["metadata"]] == ["general.architecture"]


def test_json_of_numbers_and_bytes_that_json_lacks(inspect: Inspect, tmp_path: Path) -> None:
    kv = {"t.nan": math.nan, "t.bytes": "\udcff", "llama.rope.freq_base": math.inf}
    path = make_gguf(tmp_path / "m.gguf", kv=kv)
    document = inspect(path, "--json").json
    assert run_json([str(path)], tmp_path, None) == document, "the process, too"
    metadata = {entry["key"]: entry["value"] for entry in document["metadata"]}
    assert (metadata["t.nan"], metadata["t.bytes"]) == ("NaN", "\udcff")
    assert metadata["llama.rope.freq_base"] == "Infinity"
    assert document["rope"]["freq_base"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "llama Q4_K_M"),
        ({"arch": None, "tensors": [("t", (32,), "F32")]}, "- -"),
        ({"kv": {"general.file_type": 1024 + 7}}, "llama Q8_0"),
    ],
)
def test_quiet_is_architecture_and_quant(
    inspect: Inspect, tmp_path: Path, arguments: dict[str, Any], line: str
) -> None:
    assert inspect(make_gguf(tmp_path / "m.gguf", **arguments), "-q") == Ran(0, f"{line}\n", "")


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (134_515_008, "134.5M"),
        (999_960_000, "1.0B"),
        (671_026_419_200, "671.0B"),
        (1_026_000_000_000, "1.0T"),
    ],
)
def test_parameters_as_the_field_writes_them(n: int, text: str) -> None:
    assert parameters_text(n) == text


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope.gguf"], 3, "error: nope.gguf: no such file"),
        ([SET, "--key", "general.architectur"], 3, "error: there is no key 'general.architectur'"),
        ([SET, "--tensors", "zzz"], 3, "error: no tensor fits 'zzz'"),
        (
            [SET, "--key", "a", "--template"],
            2,
            "error: --tensors, --layers, --metadata, --key and --template",
        ),
        (["--one-file"], 2, "error: --one-file needs the file's name"),
        ([SET, "--tensr"], 2, "Did you mean '--tensors'"),
    ],
)
def test_refusals(inspect: Inspect, arguments: list[str], code: int, message: str) -> None:
    ran = inspect(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("case", CORPUS, ids=[case.name for case in CORPUS])
def test_a_broken_file_is_a_line_and_exit_7(inspect: Inspect, tmp_path: Path, case: Case) -> None:
    path = case.write(tmp_path)
    for arguments in ([], ["--json"], ["--tensors"]):
        ran = inspect(path, *arguments)
        if not case.refused:
            assert ran.code == 0, ran.err
            continue
        assert (ran.code, ran.out) == (7, "")
        assert ran.err.startswith(f"error: {path}: ")
        assert len(ran.err.splitlines()) <= 2


def test_a_foreign_shard_is_named(inspect: Inspect, tmp_path: Path) -> None:
    paths = make_shards(make_gguf(tmp_path / "m.gguf"), tmp_path / "set", max_tensors=8)
    shutil.copy(paths[1], paths[2])
    ran = inspect(paths[0])
    assert ran.code == 7
    assert paths[2].name in ran.err and "by its split.no" in ran.err


# ---- in a process of its own ----

_MEASURED = """
import sys
from ggufkit.cli.main import run
code = run(sys.argv[1:])
heavy = {"numpy", "gguf", "huggingface_hub", "modelscope", "urllib3", "requests", "http", "ssl", "tqdm"}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0], ",".join(sorted(heavy & sys.modules.keys())), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("arguments", [[], ["--json"], ["--tensors"], ["--layers"], ["--metadata"]])
def test_r1_in_little_time_and_memory(tmp_path: Path, arguments: list[str]) -> None:
    """The header alone has 4.9 MB; the bounds leave room for a slow machine, not for numpy."""
    path = r1_shaped(tmp_path / "r1.gguf")
    command = [sys.executable, "-c", _MEASURED, "inspect", str(path), *arguments]
    cpu_s = []
    for _ in range(3):
        before = os.times()
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        after = os.times()
        cpu_s.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        assert ran.returncode == 0, ran.stderr
    peak_kib, _, heavy = ran.stderr.splitlines()[-1].partition(" ")
    assert heavy == "", "imported for nothing"
    assert int(peak_kib) < 40 << 10
    assert min(cpu_s) < 0.6


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    path = r1_shaped(tmp_path / "r1.gguf")
    command = [sys.executable, "-m", "ggufkit", "inspect", str(path), "--key", "tokenizer.ggml.tokens"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "<｜begin▁of▁sentence｜>\n".encode()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_r1_on_a_hub_by_range(tmp_path: Path, source: str) -> None:
    """197 GB on the hub, 5 MB fetched: shard 1's header, and 64 KiB of each other shard."""
    root, home = tmp_path / "root", tmp_path / "home"
    home.mkdir()
    paths = r1_shards(root / REPO_ID / FOLDER)
    digests = {str(path.relative_to(root)): f"{i:064x}" for i, path in enumerate(paths)}
    local = run_json([str(paths[0])], home, None)
    with run_hub(root, cdn=True, sha256s=digests) as hub:
        began_s = time.monotonic()
        remote = run_json([f"{REPO_ID}:UD-IQ2_XXS", "--source", source], home, hub.client_env(home))
        assert time.monotonic() - began_s < 20
        fetched_bytes = hub.sent_bytes(plane="cdn")
        assert len(hub.asked(plane="cdn")) <= 7
    assert 4_900_000 < fetched_bytes < 5_500_000
    for same in ("name", "n_bytes", "model", "statistics", "metadata", "split", "tokenizer"):
        assert remote[same] == local[same]
    assert [file["name"] for file in remote["files"]] == [f"{FOLDER}/{path.name}" for path in paths]


def run_json(arguments: list[str], home: Path, env: dict[str, str] | None) -> Any:
    command = [sys.executable, "-m", "ggufkit", "inspect", "--json", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=home, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
