"""Checks of an engine before it starts: whether it is installed, whether its endpoint answers."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from hubkit.errors import EngineError, RecipeError

__all__ = ["check_engine"]


def check_engine(engine: Mapping[str, Any], step: str) -> None:
    """Raise EngineError or RecipeError when a model cannot be asked through these settings (an EngineRuntime)."""
    if engine["engine"] == "vllm":
        from hubkit.engines.vllm import check_installed

        check_installed()
    if engine["engine"] == "openai":
        addresses = engine["endpoint"]
        for address in [addresses] if isinstance(addresses, str) else addresses:
            _check_endpoint(address, engine["api_key_env"], step)


def _check_endpoint(endpoint: str, key_env: str, step: str) -> None:
    if not endpoint.startswith(("http://", "https://")):
        raise RecipeError(
            f"{step}: engine openai needs an endpoint", "set run.engines.<model>.endpoint=http://…/v1"
        )
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(key_env, "")) else {}
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/models", headers=headers)  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise EngineError(
                f"{endpoint} refuses the key in {key_env}", f"put a valid one in {key_env}"
            ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise EngineError(
            f"{endpoint} does not answer: {reason}", "start the server, or correct the endpoint"
        ) from None
