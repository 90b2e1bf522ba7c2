"""Checks of an engine before it starts: whether it is installed, whether its endpoint answers."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from hubkit.errors import EngineError, RecipeError

__all__ = ["check_engine"]

ENGINES_ARGUMENTS: Final = "engine/arg_utils.py"
SERVERS_ARGUMENTS: Final = "entrypoints/openai/cli_args.py"
"""Modules of vLLM."""


def check_engine(engine: Mapping[str, Any], step: str) -> None:
    """Raise EngineError or RecipeError when a model cannot be asked through these settings (an EngineRuntime)."""
    if engine["engine"] == "vllm":
        from hubkit.engines.vllm import check_installed

        check_installed()
    if engine["engine"] in ("vllm", "auto"):
        _check_arguments(engine["vllm"], engine["in_process"], step)
    if engine["engine"] == "openai":
        addresses = engine["endpoint"]
        for address in [addresses] if isinstance(addresses, str) else addresses:
            _check_endpoint(address, engine["api_key_env"], step)


def _check_arguments(given: Iterable[str], in_process: bool, step: str) -> None:
    """Raise RecipeError for an argument that the installed vLLM does not have: its server would end hours later, when
    the step begins."""
    known = _arguments(ENGINES_ARGUMENTS)
    if not known:
        return  # it has them elsewhere, and says itself what is wrong
    servers = _arguments(SERVERS_ARGUMENTS)
    for name in given:
        if name in known or (name in servers and not in_process):
            continue
        if name in servers:
            raise RecipeError(f"{step}: {name} is an argument of vLLM's API server", "set in_process: false")
        near = difflib.get_close_matches(name, known if in_process else known | servers, 1)
        raise RecipeError(
            f"{step}: the vLLM that is installed has no argument {name!r}",
            f"did you mean {near[0]}?" if near else "`vllm serve --help=all` lists them",
        )


@functools.cache
def _arguments(module: str) -> set[str]:
    """Returns the names of the arguments in a module of vLLM, read from its source: importing it takes 10 seconds.

    They are fields of classes that are called …Args, and options that are written out.
    """
    package = importlib.util.find_spec("vllm")
    folders = package.submodule_search_locations if package else None
    path = Path(next(iter(folders or [""])), module)
    if not path.is_file():
        return set()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Args"):
            fields = [field.target for field in node.body if isinstance(field, ast.AnnAssign)]
            found |= {field.id for field in fields if isinstance(field, ast.Name)}
        if isinstance(node, ast.Constant) and re.fullmatch(r"--[a-z0-9-]+", str(node.value)):
            found.add(str(node.value)[2:].replace("-", "_"))
    return found


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
