"""`ggufkit quants` at the prompt."""

from __future__ import annotations

from pathlib import Path

from ggufkit.cli.render import gb_text
from tests.cli.conftest import Run
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import QUANT, publish


def test_the_table(tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    more = publish(tmp_path / "hub", stem="DeepSeek-R1-UD-IQ1_S")
    (tmp_path / "hub" / REPO_ID / sorted(more)[1]).unlink()
    hub.refresh()
    done = run("quants", REPO_ID)
    assert done.code == 0 and done.err == f"asking for {REPO_ID}\n{REPO_ID} on {hub.url}\n"
    head, *rows = done.lines
    assert head.split() == ["QUANT", "SIZE", "FILES", "SOURCE", "NOTE", "FOLDER"] and len(rows) == 2
    assert all("  hf, modelscope  " in row for row in rows)
    one_hub = run("quants", f"hf:{REPO_ID}").lines
    assert one_hub[0].split() == ["QUANT", "SIZE", "FILES", "NOTE", "FOLDER"]
    assert [row.split()[0] for row in rows] == ["UD-IQ1_S", QUANT]
    assert "missing 1 of 4" in rows[0] and rows[0].endswith("  DeepSeek-R1-UD-IQ1_S")
    assert gb_text(sum(map(len, files.values()))) in rows[1] and rows[1].endswith(f"  {FOLDER}")
    assert "missing" not in rows[1]


def test_json_and_quiet(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    document = run("quants", f"ms:{REPO_ID}", "--json").json
    assert document["hub"] == "modelscope" and document["commit"] is None
    (quant,) = document["quants"]
    assert quant["name"] == QUANT and quant["missing"] == [] and len(quant["files"]) == 4
    assert quant["total_bytes"] == sum(map(len, files.values()))
    done = run("quants", REPO_ID, "-q")
    assert (done.out, done.err) == (f"{QUANT}\n", "")


def test_nothing_there(hub: TestHub, work: Path, run: Run) -> None:
    done = run("quants", "no/repo")
    assert done.code == 3 and done.out == "" and "error: " in done.err and "hint: " in done.err


def test_a_repo_without_models(tmp_path: Path, hub: TestHub, work: Path, run: Run) -> None:
    (tmp_path / "hub" / "o" / "n").mkdir(parents=True)
    (tmp_path / "hub" / "o" / "n" / "README.md").write_text("nothing here")
    hub.refresh()
    done = run("quants", "hf:o/n")
    assert done.code == 0 and [line.split() for line in done.lines] == [
        ["QUANT", "SIZE", "FILES", "NOTE", "FOLDER"]
    ]
    assert run("pull", "hf:o/n").code == 3
