"""What can be known to fail before the first expensive second: models, endpoints, sandbox, token, disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubkit.errors import EngineError, GateError, InputError, RecipeError
from hubkit.hub import check_namespace, default_access, download_tokenizer
from hubkit.recipe.config import Base
from hubkit.recipe.estimate import estimate_all
from hubkit.recipe.pipeline import status
from hubkit.recipe.plan import Plan, Step
from hubkit.store import Store
from hubkit.students.gates import check_base
from hubkit.students.launch import check_accelerate
from hubkit.verifiers.code import check_sandbox

__all__ = ["check"]


def check(plan: Plan, store: Store, steps: list[Step] | None = None) -> None:
    """Raise the first error that would stop these steps (default: all) later. Done steps are not asked."""
    names = {step.name for step in steps or plan.steps}
    states = [s for s in status(plan, store, explain=False) if s.state != "done" and s.step.name in names]
    if not states:
        return
    kinds = {state.step.kind for state in states}
    here = plan.recipe.run.executor == "local"  # what a cluster's nodes have is not to be seen from here
    templated = {base.name for base in plan.recipe.students.bases if base.chat_template}
    for name in sorted({ref for state in states for ref in state.step.models.values()}):
        if not name.startswith("problems/"):
            _model(name, Path(plan.models[name].model), name in templated)
    if "student" in kinds:
        for base in plan.recipe.students.bases:
            _base(plan, base)
        if plan.recipe.run.accelerate:
            with tempfile.TemporaryDirectory() as folder:
                check_accelerate(plan.recipe.run.accelerate, Path(folder))
    for state in states if here else []:
        for engine in filter(None, map(state.step.runtime.get, ("engine", "judge_engine"))):
            _engine(engine, state.step.name)
    if "raw" in kinds and any(s.judged_by() == "code" for s in plan.recipe.problems.values()):
        check_sandbox()
    if "publish" in kinds and plan.recipe.hub.endpoint != "local":
        access = replace(default_access(), endpoint=plan.recipe.hub.endpoint)
        check_namespace(access, plan.recipe.hub.namespace)
    if plan.recipe.run.device == "cuda" and here:
        import torch

        if not torch.cuda.is_available():
            raise RecipeError("run.device is cuda and torch sees no GPU", "--set run.device=auto")
    estimates = estimate_all(plan, store, states)
    needed = sum(
        estimates[s.step.name].bytes or 0 for s in states if estimates[s.step.name].source != "limits"
    )
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot use {store.root}: {error.strerror}", "choose another folder with --out"
        ) from None
    free = shutil.disk_usage(store.root).free
    if free < needed + 50_000_000:
        raise InputError(
            f"{free / 1e6:.0f} MB are free where the runs are kept, and {needed / 1e6 + 50:.0f} MB are needed",
            "free some space, or choose another folder with --out",
        )


def _model(name: str, folder: Path, templated: bool) -> None:
    if not folder.is_dir():
        return  # on the Hub: that it exists was seen when its commit was resolved
    if not list(folder.glob("*.safetensors")):
        raise RecipeError(
            f"the model {name!r} has no safetensors weights", "convert it; pickles are not read"
        )
    template = templated or (folder / "chat_template.jinja").is_file()
    if not template and '"chat_template"' not in (folder / "tokenizer_config.json").read_text(
        encoding="utf-8"
    ):
        raise RecipeError(
            f"the tokenizer of {name!r} has no chat template", "add chat_template.jinja to its folder"
        )


def _base(plan: Plan, base: Base) -> None:
    """Ask the gates of training now: a template that they refuse would be found after days of generation."""
    model = plan.models[base.name]
    folder = Path(model.model)
    if not folder.is_dir():
        folder = download_tokenizer(model.model, model.revision)
    try:
        check_base(folder, base.chat_template, plan.recipe.students.system)
    except GateError as error:
        raise GateError(f"students of {base.name}: {error.message}", error.remedy) from error
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GateError(
            f"students of {base.name}: no usable tokenizer: {reason}",
            "choose another base, or add its tokenizer's files",
        ) from error


def _engine(engine: dict[str, Any], step: str) -> None:
    if engine["engine"] == "vllm":
        from hubkit.engines.vllm import check_installed

        check_installed()
    if engine["engine"] == "openai":
        addresses = engine["endpoint"]
        for address in [addresses] if isinstance(addresses, str) else addresses:
            _endpoint(address, engine["api_key_env"], step)


def _endpoint(endpoint: str, key_env: str, step: str) -> None:
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
            f"{endpoint} does not answer: {reason}", "start the server, or mend the endpoint"
        ) from None
