"""`ggufkit fit` of several quants and of several machines, at the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.hub import REPO_ID, run_hub
from tests.support.quants import r1_quant, r1_repo

SOME = ("UD-IQ2_XXS", "UD-Q2_K_XL", "Q4_K_M")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / REPO_ID
    r1_repo(folder, SOME)
    return folder


def test_the_table_marks_the_best_choice(run: Run, folder: Path) -> None:
    ran = run("fit", folder, "--machine", "z440-4ch")
    assert ran.code == 0
    assert ran.lines[0].endswith("DeepSeek-R1-GGUF: 3 models")
    assert ran.lines[1] == "memory: 256.0 GiB (274.9 GB), z440-4ch"
    assert ran.lines[2] == "bandwidth: 76.8 GB/s, of the profile; speeds: formula"
    rows = {line.split()[0]: line for line in ran.lines if line}
    assert " ".join(rows["QUANT"].split()) == "QUANT SIZE BITS WITH 4,096 VERDICT FITS WITH TOKENS/S"
    assert [name for name, row in rows.items() if row.endswith("<- best choice")] == ["UD-Q2_K_XL"]
    assert "169.0 GiB (181.4 GB)  2.16" in rows["UD-IQ2_XXS"]
    assert "pages from SSD          -" in rows["Q4_K_M"]
    assert "best choice: UD-Q2_K_XL, the most bits a weight (2.7) of 2 that fit" in ran.out
    assert ran.err == f"reading the headers of 3 models of {folder}\n"


def test_scripts_get_the_name_or_the_document(run: Run, folder: Path) -> None:
    assert run("fit", folder, "--machine", "z440-4ch", "-q").out == "UD-Q2_K_XL\n"
    assert run("fit", folder, "--ram", "8G", "-q").out == "none\n"
    two = run("fit", folder, "--machine", "z440-4ch", "--machine", "xuanwu", "-q")
    assert (two.out, two.err) == ("UD-Q2_K_XL\nQ4_K_M\n", "")
    document = run("fit", folder, "--machine", "z440-4ch", "-c", "8192", "--json").json
    (machine,) = document["machines"]
    assert machine["rig"]["price_cny"]["value"] == 2100
    assert [q["context_tokens"] for q in machine["quants"]] == [8192] * 3
    assert set(machine["quants"][0]["speed"]) >= {"low_tokens_per_s", "tokens_per_s", "high_tokens_per_s"}
    assert document["context_is_default"] is False


def test_check_is_for_the_best_choice(run: Run, folder: Path) -> None:
    assert run("fit", folder, "--ram", "256G", "--check").code == 0
    ran = run("fit", folder, "--ram", "64G", "--check")
    assert ran.code == 8
    assert "none fits: the smallest, UD-IQ2_XXS, takes 169." in ran.err


def test_a_repo_ends_with_the_next_step(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder.parents[1]
    paths = sorted(path.relative_to(root).as_posix() for path in folder.rglob("*.gguf"))
    digests = {path: f"{i:064x}" for i, path in enumerate(paths)}
    with run_hub(root, sha256s=digests, cache_folder=tmp_path) as hub:
        for name, value in {**hub.hf_env, **hub.ms_env}.items():
            monkeypatch.setenv(name, value)
        ran = run("fit", REPO_ID, "--ram", "256G")
        assert ran.code == 0
        assert ran.lines[0] == f"{REPO_ID} on {hub.url}: 3 models"
        assert "speed: unknown until ggufkit machine has measured this one" in ran.out
        assert f"next: ggufkit fit {REPO_ID}:UD-Q2_K_XL, ggufkit pull {REPO_ID} --quant UD-Q2_K_XL" in ran.err


def test_machines_are_compared(run: Run, folder: Path) -> None:
    names = ["z440-1ch", "z440-4ch", "mac-mini-64", "epyc-7702"]
    machines = [word for name in names for word in ("--machine", name)]
    model = folder / "DeepSeek-R1-UD-IQ2_XXS"
    ran = run("fit", model, *machines)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith("DeepSeek-R1-UD-IQ2_XXS: takes 169.")
    rows = {line.split()[0]: line for line in ran.lines[2:] if line}
    assert list(rows)[:5] == ["MACHINE", *names]
    assert rows["z440-4ch"].endswith("2,100 CNY   80 W")
    assert "pages from SSD" in rows["mac-mini-64"] and rows["epyc-7702"].endswith("2,000 USD")
    assert run("fit", model, *machines, "-q").out.split() == ["pages", "fits", "pages", "fits"]
    document = run("fit", model, *machines, "--json").json
    assert [one["rig"]["name"] for one in document["machines"]] == names
    ran = run("fit", model, *machines, "--check")
    assert ran.code == 8
    assert "DeepSeek-R1-UD-IQ2_XXS pages from SSD on z440-1ch" in ran.err
    choices = run("fit", folder, *machines)
    assert "none fits" in choices.out and "UD-Q2_K_XL" in choices.out


def test_speed_of_one_model(run: Run, tmp_path: Path) -> None:
    (model,) = r1_quant(tmp_path, "UD-IQ1_S")
    ran = run("fit", model, "--ram", "256G", "--bandwidth", "76.8G")
    speed = next(line for line in ran.lines if line.startswith("speed: "))
    assert " tokens/s, likely " in speed and speed.endswith("(formula)")
    assert "  bandwidth 76.8 GB/s, as given; low end with a full context" in ran.out
    paged = run("fit", model, "--ram", "64G", "--bandwidth", "76.8G", "--disk-speed", "3.5GB")
    assert " GB at 3.5 GB/s" in paged.out and "assumed" not in paged.out
    assert run("fit", model, "--ram", "256G", "--bandwidth", "fast").code == 2


def test_a_machine_that_is_none(run: Run, folder: Path) -> None:
    ran = run("fit", folder, "--machine", "z444-4ch")
    assert ran.code == 3
    assert "no machine is called z444-4ch" in ran.err and "did you mean z440-4ch?" in ran.err


def test_a_picture_of_the_table(run: Run, folder: Path, work: Path) -> None:
    ran = run("fit", folder, "--machine", "z440-4ch", "--plot", "quants.svg")
    assert ran.code == 0
    assert "picture: quants.svg\n" in ran.err
    assert (work / "quants.svg").read_text().startswith("<?xml")
    again = run("fit", folder, "--machine", "z440-4ch", "--plot", "quants.svg")
    assert (again.code, again.out) == (9, "")
    assert "hint: --force overwrites it" in again.err
    assert run("fit", folder, "--machine", "z440-4ch", "--plot", "quants.svg", "-f", "-q").code == 0
    assert run("fit", folder, "--plot", "quants.jpg").code == 2


def test_one_run_narrows_the_range(run: Run, tmp_path: Path) -> None:
    (model,) = r1_quant(tmp_path, "UD-IQ1_S")
    assert "speed: unknown" in run("fit", model, "--ram", "256G").out
    told = run("fit", model, "--ram", "256G", "--calibrate", "2.5")
    assert "likely 2.5 (measured here)" in told.out
    assert "likely 2.5 (measured here)" in run("fit", model, "--ram", "256G").out
    assert "speed: unknown" in run("fit", model, "--ram", "256G", "--calibrate", "off").out
    for wrong, word in ((["--calibrate", "fast"], "no such file"), (["--calibrate", "-1"], "no speed")):
        assert word in run("fit", model, "--ram", "256G", *wrong).err
    several = run("fit", model, "--machine", "z440-4ch", "--machine", "xuanwu", "--calibrate", "2")
    assert several.code == 2 and "for one model on this machine" in several.err


def test_a_part_on_a_gpu_has_a_speed(run: Run, tmp_path: Path) -> None:
    (model,) = r1_quant(tmp_path, "UD-IQ1_S")
    options = ["--ram", "256G", "--bandwidth", "76.8G", "--vram", "24G"]
    unknown = run("fit", model, *options)
    assert (
        "the GPU's memory is assumed at 192 to 1000 GB/s, likely 450; --gpu-bandwidth says it" in unknown.out
    )
    known = run("fit", model, *options, "--gpu-bandwidth", "448G")
    assert "x 448.0 GB/s)" in known.out and "assumed" not in known.out
