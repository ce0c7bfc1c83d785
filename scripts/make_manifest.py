#!/usr/bin/env python3
"""Make the shipped manifests of the facts in `manifest_facts.toml`.

    scripts/make_manifest.py           writes manifests/
    scripts/make_manifest.py --check   says whether manifests/ is what would be written

The same facts make the same bytes. A folder of what is not in the facts any more is cleaned.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from ggufkit.hubs.endpoints import DEFAULTS
from ggufkit.hubs.manifest import SCHEMA, Manifest, from_json, to_json

ROOT = Path(__file__).resolve().parents[1]
FACTS = ROOT / "scripts" / "manifest_facts.toml"
FOLDER = ROOT / "manifests"


def manifests(facts: Path = FACTS) -> dict[str, str]:
    """Return the text of each manifest by its file's name."""
    sets = tomllib.loads(facts.read_text("utf-8"))["set"]
    made = [manifest_of(one) for one in sets]
    assert len({one.name.casefold() for one in made}) == len(made), "two sets of one name"
    return {f"{one.name}.json": to_json(one) for one in made}


def manifest_of(one: dict[str, Any]) -> Manifest:
    """Return one set as a manifest, read as strictly as any; raises FormatError."""
    sources = [{"endpoint": DEFAULTS[source["hub"]], **source} for source in one["source"]]
    document = {"schema": SCHEMA, "name": one["name"], "quant": one["quant"]}
    manifest = from_json(json.dumps(document | {"sources": sources, "files": one["file"]}), one["name"])
    for file in manifest.files:
        assert (file.sha256 is None) == (file.sha256_from is None), f"{file.path}: a digest without a source"
        has_size = file.size_bytes is not None or file.rounded_gb is not None
        assert has_size == (file.size_from is not None), f"{file.path}: a size without a source"
    assert all(source.seen_at for source in manifest.sources), f"{manifest.name}: a repo that nobody saw"
    return manifest


def differences(made: dict[str, str], folder: Path = FOLDER) -> list[str]:
    """Return the names of files in the folder that are not what is made."""
    there = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


def main(arguments: list[str]) -> int:
    """Write the folder, or check it; returns the exit code."""
    made = manifests()
    FOLDER.mkdir(exist_ok=True)
    differing = differences(made)
    if arguments == ["--check"]:
        print("\n".join(differing) or f"{len(made)} manifests are what the facts make")
        return 1 if differing else 0
    for name in differing:
        if name in made:
            (FOLDER / name).write_text(made[name], "utf-8", newline="\n")
        else:
            (FOLDER / name).unlink()
    print(f"{len(made)} manifests, {len(differing)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
