"""Modelfiles: what they say, and what they can't."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.errors import UsageError
from ggufkit.runtimes.ollama_modelfile import modelfile
from ggufkit.runtimes.ollama_store import SmallLayer

PARAMS = '{"stop":["<｜User｜>","say \\"hi\\""],"temperature":0.6,"num_ctx":8192,"use_mmap":true}'


def test_a_modelfile() -> None:
    layers = [
        SmallLayer("template", "a\n{{ .Prompt }}"),
        SmallLayer("license", "MIT"),
        SmallLayer("params", PARAMS),
    ]
    with pytest.raises(UsageError, match=r"stop has .* quote at its end"):
        modelfile(Path("/m/a.gguf"), layers)
    layers[2] = SmallLayer("params", PARAMS.replace(',"say \\"hi\\""', ""))
    assert modelfile(Path("/m/a b.gguf"), layers) == (
        "FROM /m/a b.gguf\n"
        'TEMPLATE """a\n{{ .Prompt }}"""\n'
        'LICENSE """MIT"""\n'
        'PARAMETER stop "<｜User｜>"\n'
        "PARAMETER temperature 0.6\n"
        "PARAMETER num_ctx 8192\n"
        "PARAMETER use_mmap true\n"
    )


@pytest.mark.parametrize("text", ['a """\nb', 'it ends in "', "zero\u200bwidth", "nbsp\u00a0"])
def test_text_that_no_modelfile_can_hold(text: str) -> None:
    with pytest.raises(UsageError, match="no Modelfile can say it"):
        modelfile(Path("/m/a.gguf"), [SmallLayer("template", text)])


@pytest.mark.parametrize("name", ["/m/a\nb.gguf", '/m/a.gguf"', "/m/\u200b.gguf"])
def test_a_path_that_no_modelfile_can_hold(name: str) -> None:
    with pytest.raises(UsageError, match="the path"):
        modelfile(Path(name), [])
