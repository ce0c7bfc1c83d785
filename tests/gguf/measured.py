"""Run code in a fresh Python and learn how much memory it took."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

# Not ru_maxrss where /proc is: Linux hands it on through exec, so it would be pytest's own peak.
_EPILOGUE = """
import json as _json, sys as _sys
from pathlib import Path as _Path
_status = _Path("/proc/self/status")
if _status.exists():
    _peak = int(_status.read_text().split("VmHWM:")[1].split()[0]) * 1024
else:
    import resource as _resource
    _unit = 1 if _sys.platform == "darwin" else 1024
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * _unit
_json.dump({"peak_bytes": _peak, "modules": sorted(_sys.modules), "result": result}, _sys.stdout)
"""


def run_measured(code: str, *arguments: str) -> dict[str, Any]:
    """Run `code`, which leaves something for JSON in `result`.

    Returns `result`, `peak_bytes` (the process's largest resident size) and `modules` (those imported).
    """
    done = subprocess.run(
        [sys.executable, "-c", code + _EPILOGUE, *arguments], capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
