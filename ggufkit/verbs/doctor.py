"""What is wrong with this set-up, and the command or the moves that mend it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.request import getproxies, proxy_bypass

from ggufkit.errors import AccessError, GgufkitError, NotFoundError, ToolError
from ggufkit.hubs.endpoints import TITLES, endpoint_of, may_see_token
from ggufkit.hubs.hub import HubName, open_hub
from ggufkit.hubs.together import Question, ask_together
from ggufkit.hubs.tokens import token_found_by, token_trouble
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.intents import leftovers
from ggufkit.runtimes.llamacpp import find_server as find_llama
from ggufkit.runtimes.llamacpp import probe
from ggufkit.runtimes.lmstudio import ModelsPlace, find_models
from ggufkit.runtimes.lmstudio_folder import Move, find_troubles, unsafe_moves
from ggufkit.runtimes.ollama import StorePlace, find_store
from ggufkit.transfer.disk import existing_parent, free_bytes, same_file_system
from ggufkit.verbs.receipts import receipts
from ggufkit.verbs.record import last_pulled, pull_command

KNOWN_REPO = "unsloth/DeepSeek-R1-GGUF"
"""A repo that both hubs have: listing it shows that the way to a hub is open."""
LITTLE_BYTES = 10 << 30
"""So little room for models is worth a word."""

State = Literal["good", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    area: str
    """What it is about: `hubs`, `disk`, `ollama`, `lmstudio`, `llama.cpp`, `network`, `pulls`."""
    state: State
    """`bad` keeps something from working, `note` may."""
    text: str
    """What was found, in a sentence."""
    mend: str | None = None
    """What to type or to do."""
    moves: tuple[Move, ...] = ()
    """What `mend` (the function) does about it."""
    exit_code: int = 0
    """What a command that fails by it ends with (ggufkit.errors); 0 unless it is bad."""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All that was looked at."""

    findings: tuple[Finding, ...]
    """In order."""

    @property
    def moves(self) -> tuple[Move, ...]:
        """Everything that can be mended by moving files."""
        return tuple(move for finding in self.findings for move in finding.moves)


def examine(
    *,
    folder: Path | None = None,
    models_dir: Path | None = None,
    network: bool = True,
    progress: Progress = SILENT,
) -> DoctorReport:
    """Look at the hubs, the disk of `folder` (the current one), the runtimes and their folders.

    Changes nothing, but for a file of no bytes that is made and removed again in folders that should be
    writable. `network` False asks no hub.
    """
    here = (folder or Path()).absolute()
    parts = [_disk(here), _pulls(), _network()]
    if network:
        parts.append(_hubs(progress))
    parts += [_ollama(here), _lmstudio(here, models_dir), _receipts(), _llama()]
    return DoctorReport(tuple(finding for part in parts for finding in part))


def mend(report: DoctorReport) -> tuple[Move, ...]:
    """Make the moves that mend what was found, and return them; nothing is overwritten.

    Raises AccessError when the models folder can't be changed.
    """
    unsafe = unsafe_moves(report.moves)
    made = []
    for move in report.moves:
        if move in unsafe:
            continue
        try:
            _make(move)
        except OSError as error:
            raise AccessError(f"{move.source} can't be moved: {error.strerror or error}") from error
        made.append(move)
    return tuple(made)


def _make(move: Move) -> None:
    if move.target is None:
        if not move.source.exists():  # it has not come back meanwhile
            move.source.unlink()
        return
    move.target.parent.mkdir(parents=True, exist_ok=True)
    move.source.rename(move.target)
    folder = move.source.parent
    while not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _disk(here: Path) -> Iterator[Finding]:
    free = free_bytes(here)
    text = f"{free / 2**30:.1f} GiB free where models would be pulled to ({here})"
    if not _writable(here):
        yield Finding("disk", "bad", f"{here} can't be written to", "cd to a folder of yours", exit_code=4)
    elif free < LITTLE_BYTES:
        yield Finding("disk", "note", text, "ggufkit pull --local-dir names another disk")
    else:
        yield Finding("disk", "good", text)


def _writable(folder: Path) -> bool:
    """Say whether files can be made in `folder`, or where it would be made."""
    try:
        with tempfile.TemporaryFile(dir=existing_parent(folder)):
            return True
    except OSError:
        return False


def _pulls() -> Iterator[Finding]:
    last = last_pulled()
    if last is None:
        return
    missing = [path for path in last.paths() if not path.exists()]
    if missing and any(path.exists() or Path(f"{path}.part").exists() for path in last.paths()):
        text = f"{last.manifest.name}, pulled last, is not whole: {len(missing)} files missing"
        yield Finding("pulls", "note", text, pull_command(last))


def _network() -> Iterator[Finding]:
    proxies = {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https", "all")}
    if not proxies:
        return
    yield Finding("network", "good", f"a proxy is set for {', '.join(sorted(proxies))}")
    if not proxy_bypass("127.0.0.1"):
        text = "NO_PROXY does not name 127.0.0.1: other tools may send Ollama's requests to the proxy"
        yield Finding("network", "note", text, "export NO_PROXY=localhost,127.0.0.1,::1")


def _hubs(progress: Progress) -> Iterator[Finding]:
    names: tuple[HubName, ...] = ("modelscope", "huggingface")
    hubs = {}
    for name in names:
        try:
            hubs[name] = open_hub(name)
        except GgufkitError as error:
            yield Finding("hubs", "bad", error.message, error.hint, exit_code=error.exit_code)
    progress.note(f"asking {' and '.join(TITLES[name] for name in hubs)}")
    took: dict[HubName, float] = {}
    questions = [Question(partial(_timed, name, took)) for name in hubs]
    heard: list[bool | GgufkitError | None] = ask_together(questions, SILENT)
    answers = dict(zip(hubs, heard, strict=True))
    reached = [name for name, answer in answers.items() if _is_reached(answer)]
    for name, answer in answers.items():
        token = _token(name)
        if token.state != "bad":  # with such a token it was not asked
            yield _hub(name, answer, took.get(name), others=bool(reached))
        yield token


def _timed(name: HubName, took: dict[HubName, float], _progress: Progress) -> bool:
    began = time.monotonic()
    open_hub(name).list_files(KNOWN_REPO)
    took[name] = time.monotonic() - began
    return True


def _is_reached(answer: object) -> bool:
    return answer is True or isinstance(answer, AccessError | NotFoundError)


def _hub(name: HubName, answer: object, took_s: float | None, *, others: bool) -> Finding:
    title, endpoint = TITLES[name], endpoint_of(name)
    if _is_reached(answer):
        took = f" in {took_s:.1f} s" if took_s is not None else ""
        return Finding("hubs", "good", f"{title} answers{took} ({endpoint})")
    said = answer.message if isinstance(answer, GgufkitError) else f"{title} ({endpoint}) does not answer"
    mend_ = "--source modelscope" if name == "huggingface" else "--source hf"
    other = f"{mend_} leaves it out; HTTPS_PROXY names a proxy, --source URL a mirror"
    return Finding("hubs", "note" if others else "bad", said, other, exit_code=0 if others else 5)


def _token(name: HubName) -> Finding:
    trouble = token_trouble(name)
    if trouble is not None:
        text, is_sent = f"{TITLES[name]}: {trouble.message}", may_see_token(name, endpoint_of(name))
        state: State = "bad" if is_sent else "note"
        return Finding("hubs", state, text, trouble.hint, exit_code=trouble.exit_code if is_sent else 0)
    found = token_found_by(name)
    text = f"a token in {found}" if found else "no token: gated and private repos are closed"
    return Finding("hubs", "good", f"{TITLES[name]}: {text}")


def _ollama(here: Path) -> Iterator[Finding]:
    try:
        place = find_store(environ=os.environ)
    except ToolError as error:
        yield Finding("ollama", "bad", error.message, error.hint, exit_code=error.exit_code)
        return
    if place.server is None and not place.store.root.is_dir():
        yield Finding("ollama", "note", "no Ollama answers here, and none has left a store")
        return
    server = place.server
    version = f"Ollama {server.version_text} answers at {server.url}" if server else "no Ollama answers here"
    yield Finding("ollama", "good", f"{version}; its store is {place.store.root} ({place.found_by})")
    yield from (Finding("ollama", "note", warning) for warning in place.warnings)
    yield from _store(place, here)
    yield from _traces(place)


def _store(place: StorePlace, here: Path) -> Iterator[Finding]:
    root = place.store.root
    if not _writable(root):
        mend_ = f"sudo {Path(sys.argv[0]).name} ollama-import, or join the group of the store's owner"
        yield Finding("ollama", "bad", f"this user may not write to {root}", mend_, exit_code=4)
    if not same_file_system(here, root):
        text = f"{here} and Ollama's store are on different disks: an import has to copy"
        yield Finding("ollama", "note", text, "pull to a folder on the store's disk (--local-dir)")
    partial_ = [*root.glob("blobs/*-partial*")] if root.is_dir() else []
    if partial_:
        n_bytes = sum(path.stat().st_size for path in partial_ if path.is_file())
        text = f"{len(partial_)} blobs of unfinished downloads, {n_bytes / 2**30:.1f} GiB"
        yield Finding("ollama", "note", text, "ollama pull of the same model goes on; a restart removes them")


def _traces(place: StorePlace) -> Iterator[Finding]:
    """Tell of what imports left: notes of killed ones, receipts of models that are gone, dangling links."""
    store = place.store
    left = leftovers(store.staging)
    if left:
        text = f"imports that were killed, or run now, have files in {store.staging}: {len(left)}"
        yield Finding("ollama", "note", text, "the next ggufkit ollama-import removes them")
    links = [blob for blob in store.blobs.glob("sha256-*") if blob.is_symlink() and not blob.exists()]
    for link in links:
        text = f"{link.name[:19]}... is a link to {link.readlink()}, which is not there: no model loads by it"
        yield Finding("ollama", "bad", text, "mount that disk, or put the file back", exit_code=10)


def _receipts() -> Iterator[Finding]:
    """Tell of imports whose models other programs have removed, or whose disk is not mounted."""
    for receipt in receipts():
        files = [Path(file.target) for file in receipt.files]
        gone = [file for file in files if not os.path.lexists(file)]
        if gone:
            whole = f"{receipt.name}, imported into {receipt.folder}, is not whole there"
            text = f"{whole}: {gone[0].name} is gone"
            again = f"ggufkit {receipt.runtime}-import puts it there again"
            yield Finding(receipt.runtime, "note", text, again)


def _lmstudio(here: Path, models_dir: Path | None) -> Iterator[Finding]:
    try:
        place = find_models(models_dir=models_dir, environ=os.environ)
    except NotFoundError as error:
        yield Finding("lmstudio", "bad", error.message, error.hint, exit_code=error.exit_code)
        return
    if not place.folder.is_dir():
        yield Finding("lmstudio", "note", f"LM Studio has no models folder yet ({place.folder})")
        return
    yield Finding("lmstudio", "good", f"LM Studio's models are in {place.folder} ({place.found_by})")
    yield from _models_folder(place, here)


def _models_folder(place: ModelsPlace, here: Path) -> Iterator[Finding]:
    if not same_file_system(here, place.folder):
        text = f"{here} and LM Studio's models are on different disks: an import has to copy"
        yield Finding("lmstudio", "note", text, "pull to a folder on that disk, or --symbolic-link")
    troubles = find_troubles(place.folder)
    unsafe = unsafe_moves(move for trouble in troubles for move in trouble.moves)
    for trouble in troubles:
        stuck = [move for move in trouble.moves if move in unsafe]
        if stuck:
            yield Finding("lmstudio", "bad", trouble.text, f"{stuck[0].target} is in the way", exit_code=7)
        elif trouble.moves:
            mend_ = "ggufkit doctor --fix"
            yield Finding("lmstudio", "bad", trouble.text, mend_, trouble.moves, exit_code=7)
        else:
            mend_ = "pull the set again: only what is missing is fetched"
            yield Finding("lmstudio", "bad", trouble.text, mend_, exit_code=7)


def _llama() -> Iterator[Finding]:
    server = find_llama(None)
    if server is None:
        if shutil.which("llama-cli"):
            yield Finding("llama.cpp", "note", "llama-cli is on the PATH, llama-server is not")
        return
    try:
        dialect = probe(server)
    except ToolError as error:
        yield Finding("llama.cpp", "bad", error.message, error.hint, exit_code=error.exit_code)
        return
    age = "--load-mode" if dialect.load_mode else "--mlock and --no-mmap, before July 2026"
    yield Finding("llama.cpp", "good", f"llama-server is {server} (flags: {age})")
