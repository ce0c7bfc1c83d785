"""LM Studio on this machine: where its models are, and what a model's folder is called.

LM Studio indexes `<models>/<publisher>/<model>/<file>.gguf`, exactly two folders deep. Its home and its
models folder are found as it does (lmstudio.js findLMStudioHome.ts, lms importCmd.ts
`resolveModelsFolderPath`), but nothing of its own is written: not the pointer file, not the settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import NotFoundError, UsageError, printable
from ggufkit.gguf.model import ModelInfo
from ggufkit.runtimes.ollama_names import split_quant

MAX_PART = 100  # lms importCmd.ts `isValidFolderName`
NOBODY = "imported-models"  # where lms import puts what it can't name

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows' device names
_REPO_URL = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co|modelscope\.cn/models)/([^/]+)/([^/?#]+)/?"
)


@dataclass(frozen=True, slots=True)
class ModelsPlace:
    """LM Studio's models folder, and how it was found."""

    folder: Path
    """The folder that holds the publishers' folders."""
    found_by: str
    """What named it: `--models-dir`, a settings file, or `default`."""
    warnings: tuple[str, ...] = ()
    """What makes the choice doubtful."""


@dataclass(frozen=True, slots=True)
class UserRepo:
    """The two folders of a model: publisher and model."""

    user: str
    """The publisher."""
    repo: str
    """The model."""
    found_by: str
    """What named them: `--user-repo`, `pull`, `file` (its metadata) or `name` (of the file)."""

    def __str__(self) -> str:
        return f"{self.user}/{self.repo}"


def find_models(
    *, models_dir: Path | None = None, environ: Mapping[str, str], home: Path | None = None
) -> ModelsPlace:
    """Find the models folder; nothing is made or written.

    Raises NotFoundError when the settings name a folder that is not there (a disk that is not mounted).
    """
    if models_dir is not None:
        return ModelsPlace(models_dir.expanduser().absolute(), "--models-dir")
    user_home = home or Path.home()
    own = find_home(user_home)
    for settings in (own / "settings.json", *_old_settings(user_home, environ)):
        folder = _downloads_folder(settings)
        if folder is None:
            continue
        if not folder.is_dir():
            message = f"{settings} names {folder} for the models, and that is not there"
            raise NotFoundError(message, hint="mount that disk, or name a folder with --models-dir")
        return ModelsPlace(folder, str(settings))
    warnings = () if own.is_dir() else (f"LM Studio has not run here yet: it will look in {own}",)
    return ModelsPlace(own / "models", "default", warnings)


def find_home(user_home: Path) -> Path:
    """Return LM Studio's home: the pointer file's, an old one that exists, else `~/.lmstudio`."""
    try:
        pointed = (user_home / ".lmstudio-home-pointer").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    if pointed:
        return Path(pointed)
    old = user_home / ".cache" / "lm-studio"
    return old if old.exists() else user_home / ".lmstudio"


def parse_user_repo(text: str) -> UserRepo:
    """Read `publisher/model`; raises UsageError for what is no pair of plain folder names."""
    parts = text.split("/")
    if len(parts) != 2:
        raise UsageError(
            f"{printable(text)!r} is no publisher/model", hint="--user-repo unsloth/DeepSeek-R1-GGUF"
        )
    for part in parts:
        reason = _fault(part)
        if reason:
            raise UsageError(f"{printable(part)!r} can't be a folder's name: {reason}")
    return UserRepo(parts[0], parts[1], "--user-repo")


def infer_user_repo(set_name: str, info: ModelInfo, pulled_from: str | None) -> UserRepo:
    """Name a model's folders without the network: by the repo it was pulled from, else by its metadata."""
    if pulled_from is not None:
        user, _, repo = pulled_from.partition("/")
        return UserRepo(plain_name(user), plain_name(repo), "pull")
    match = _REPO_URL.fullmatch(info.repo_url or "")
    if match:
        return UserRepo(plain_name(match[1]), plain_name(match[2]), "file")
    label, _ = split_quant(set_name)
    said = info.quantized_by or info.organization
    return UserRepo(plain_name(said or NOBODY), plain_name(label), "file" if said else "name")


def _fault(part: str) -> str | None:
    """Return why `part` can't be a folder's name on every system, or None."""
    if not part:
        return "it is empty"
    if len(part) > MAX_PART:
        return f"it has {len(part)} characters, {MAX_PART} are allowed"
    if part != part.strip() or part != part.strip("."):
        return "it begins or ends with a blank or a dot"
    if _FORBIDDEN.search(part):
        return 'none of <>:"\\|?* and control characters'
    return "Windows keeps this name for a device" if _RESERVED.fullmatch(part) else None


def plain_name(text: str) -> str:
    """Make a folder's name of any text."""
    name = re.sub(r"[^\w.-]+", "-", text).strip("-. ")[:MAX_PART].rstrip("-. ")
    return name if _fault(name) is None else NOBODY


def _downloads_folder(settings: Path) -> Path | None:
    try:
        document = json.loads(settings.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    folder = document.get("downloadsFolder") if isinstance(document, dict) else None
    return Path(folder) if isinstance(folder, str) and folder else None


def _old_settings(user_home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where LM Studio kept its settings earlier: the desktop app's own data (lms pull request 438)."""
    config = Path(environ.get("XDG_CONFIG_HOME") or user_home / ".config")
    folders = [config, user_home / "Library" / "Application Support"]
    if appdata := environ.get("APPDATA"):
        folders.append(Path(appdata))
    return tuple(folder / "LM Studio" / "settings.json" for folder in folders)
