"""hubkit: reasoning traces, compressed and distilled, released on the Hugging Face Hub."""

from __future__ import annotations

__version__ = "0.2.0"
