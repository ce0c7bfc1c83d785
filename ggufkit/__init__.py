"""ggufkit: big split GGUF models, from the hub to the runtime.

The names below are the public API. They are loaded on first use, so that `import ggufkit` costs
nothing: no hub client, no HTTP client, no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "FitReport": "verbs.fit",
    "GgufkitError": "errors",
    "Header": "gguf.header",
    "Host": "fit.hosts",
    "Inspection": "verbs.inspect",
    "LocalModel": "verbs.locate",
    "Progress": "progress",
    "compare_machines": "verbs.fit_machines",
    "describe_machine": "verbs.machine",
    "find_model": "verbs.locate",
    "find_rigs": "verbs.rigs",
    "find_several": "verbs.several",
    "fit_hosts": "verbs.hosts",
    "fit_model": "verbs.fit",
    "fit_repo": "verbs.fit_repo",
    "inspect": "verbs.inspect",
    "lmstudio_import": "verbs.lmstudio_import",
    "load_headers": "verbs.locate",
    "merge": "verbs.merge",
    "ollama_import": "verbs.ollama_import",
    "open_header": "transfer.sources",
    "plan_lmstudio_import": "verbs.lmstudio_import",
    "plan_merge": "verbs.merge",
    "plan_ollama_import": "verbs.ollama_import",
    "plan_pull": "verbs.pull",
    "plan_pull_merged": "verbs.pull_merged",
    "plan_pull_to": "verbs.pull_to",
    "plan_serve": "verbs.serve",
    "plan_serving": "verbs.serve_config",
    "plan_split": "verbs.split",
    "predict_speed": "fit.speed",
    "pull": "verbs.pull",
    "pull_merged": "verbs.pull_merged",
    "pull_to": "verbs.pull_to",
    "quants": "verbs.listing",
    "serve": "verbs.serve",
    "serve_config": "verbs.serve_config",
    "split": "verbs.split",
    "verify": "verbs.verify",
}

__all__ = [
    "FitReport",
    "GgufkitError",
    "Header",
    "Host",
    "Inspection",
    "LocalModel",
    "Progress",
    "__version__",
    "compare_machines",
    "describe_machine",
    "find_model",
    "find_rigs",
    "find_several",
    "fit_hosts",
    "fit_model",
    "fit_repo",
    "inspect",
    "lmstudio_import",
    "load_headers",
    "merge",
    "ollama_import",
    "open_header",
    "plan_lmstudio_import",
    "plan_merge",
    "plan_ollama_import",
    "plan_pull",
    "plan_pull_merged",
    "plan_pull_to",
    "plan_serve",
    "plan_serving",
    "plan_split",
    "predict_speed",
    "pull",
    "pull_merged",
    "pull_to",
    "quants",
    "serve",
    "serve_config",
    "split",
    "verify",
]

if TYPE_CHECKING:
    from ggufkit.errors import GgufkitError
    from ggufkit.fit.hosts import Host
    from ggufkit.fit.speed import predict_speed
    from ggufkit.gguf.header import Header
    from ggufkit.progress import Progress
    from ggufkit.transfer.sources import open_header
    from ggufkit.verbs.fit import FitReport, fit_model
    from ggufkit.verbs.fit_machines import compare_machines
    from ggufkit.verbs.fit_repo import fit_repo
    from ggufkit.verbs.hosts import fit_hosts
    from ggufkit.verbs.inspect import Inspection, inspect
    from ggufkit.verbs.listing import quants
    from ggufkit.verbs.lmstudio_import import lmstudio_import, plan_lmstudio_import
    from ggufkit.verbs.locate import LocalModel, find_model, load_headers
    from ggufkit.verbs.machine import describe_machine
    from ggufkit.verbs.merge import merge, plan_merge
    from ggufkit.verbs.ollama_import import ollama_import, plan_ollama_import
    from ggufkit.verbs.pull import plan_pull, pull
    from ggufkit.verbs.pull_merged import plan_pull_merged, pull_merged
    from ggufkit.verbs.pull_to import plan_pull_to, pull_to
    from ggufkit.verbs.rigs import find_rigs
    from ggufkit.verbs.serve import plan_serve, serve
    from ggufkit.verbs.serve_config import plan_serving, serve_config
    from ggufkit.verbs.several import find_several
    from ggufkit.verbs.split import plan_split, split
    from ggufkit.verbs.verify import verify


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ggufkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ggufkit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
