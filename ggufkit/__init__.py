"""ggufkit: big split GGUF models, from hub to runtime."""

from __future__ import annotations

__version__ = "0.1.0"
