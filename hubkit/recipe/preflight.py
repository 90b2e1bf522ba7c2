"""Checks before the first expensive second: each step's own `check`, models, device, disk."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hubkit.devices import gpus_of_workers, unseen_gpu, workers_per_gpu
from hubkit.engines import choose
from hubkit.engines.settings import PARALLEL, EngineRuntime
from hubkit.engines.weights import MISFIT_REMEDY, misfit, stored_shapes, torn_weights
from hubkit.errors import InputError, RecipeError, first_line
from hubkit.hub import download_tokenizer, weight_shapes
from hubkit.recipe.estimate import Estimate, estimate_all
from hubkit.recipe.graph import Plan, Step
from hubkit.recipe.pipeline import State, status
from hubkit.store import CheckContext, Store

__all__ = ["check"]

ASKED = ("teacher", "compressor", "judge")
"""Steps' names for the models that they load, or that an engine loads."""
ENGINES = ("engine", "judge_engine")
"""Steps' names for the settings of their engines."""
SPARE_BYTES = 50_000_000
"""Free disk that a run needs besides its steps' outputs: journals, logs, progress."""


def check(plan: Plan, store: Store, steps: list[Step] | None = None) -> None:
    """Raise the first error that would stop these steps (default: all) later. Finished steps are not checked."""
    names = {step.name for step in steps or plan.steps}
    everything = status(plan, store, explain=False)
    states = [s for s in everything if s.state != "done" and s.step.name in names]
    if not states:
        return
    _check_models(plan, states)
    estimates = estimate_all(plan, store, everything)
    local = plan.recipe.hub.endpoint == "local"
    written = [estimates[s.step.name] for s in states if s.step.kind != "publish" or local]
    _check_disk(store, written)
    # Checks of students import transformers, which takes seconds: other errors are raised before.
    for state in sorted(states, key=lambda state: state.step.kind == "student"):
        own = getattr(state.step.module, "check", None)
        if own is not None:
            own(_context(plan, state.step))
    _check_fit(plan, states)
    if plan.recipe.run.executor != "hf-jobs":  # whose jobs have disks of their own
        _check_disk_of_students(plan, store, states)
    if plan.recipe.run.executor == "local":  # a cluster's nodes cannot be seen from here
        _check_devices(plan, states)


def _check_devices(plan: Plan, states: list[State]) -> None:
    """Raise RecipeError for GPUs that are asked for and not there; say on stderr which GPUs are unused or shared."""
    run = plan.recipe.run
    if run.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            why = f" ({why})" if (why := unseen_gpu()) else ""
            raise RecipeError(
                f"run.device is {run.device} and torch sees no GPU{why}", "--set run.device=auto"
            )
    engines = [engine for state in states for key in ENGINES if (engine := state.step.runtime.get(key))]
    if not engines and not any(state.step.kind == "student" for state in states):
        return
    if run.device == "auto" and (why := unseen_gpu()):
        print(
            f"warning: run.device is auto, and steps run on the CPU: this machine has a GPU, and torch does not see it "
            f"({why})",
            file=sys.stderr,
        )
    shares = gpus_of_workers(run.workers, run.device)
    fewest = min(map(len, shares), default=0)
    for engine in engines:
        chosen = choose(EngineRuntime(**engine), run.device)
        if shares and chosen.engine == "vllm" and (needed := chosen.vllm_gpus) > fewest:
            raise RecipeError(
                f"run.workers is {run.workers}, of which each has {fewest} of the GPUs, and an engine takes {needed}",
                f"lower run.workers, or the engine's {', '.join(PARALLEL)}",
            )
    if (sharing := workers_per_gpu(shares)) > 1:
        print(
            f"warning: run.workers is {run.workers}, and torch sees fewer GPUs: up to {sharing} steps share one and "
            "its memory",
            file=sys.stderr,
        )


def _context(plan: Plan, step: Step) -> CheckContext:
    models = {name: plan.models[ref] for name, ref in step.models.items()}
    return CheckContext(
        step=step.name,
        config=step.config,
        runtime=step.runtime,
        models={name: {"model": model.model, "revision": model.revision} for name, model in models.items()},
        problems=_verifiers(plan),
        inputs=set(step.inputs),
        here=plan.recipe.run.executor == "local",  # what a cluster's nodes have cannot be seen from here
    )


def _verifiers(plan: Plan) -> set[str]:
    sources = [source.judged_by() for source in plan.recipe.problems.values()]
    return set(sources) | {verifier for origin in plan.recipe.origins() if (verifier := origin.judged_by())}


def _check_models(plan: Plan, states: list[State]) -> None:
    templated = {base.name for base in plan.recipe.students.bases if base.chat_template}
    templated |= {compressor.name for compressor in plan.recipe.compressors if compressor.scorer()}
    for name in sorted({ref for state in states for ref in state.step.models.values()}):
        folder = Path(plan.models[name].model)
        # Of one on the Hub it was seen that it exists when its commit was resolved.
        if "/" not in name and folder.is_dir():
            _check_folder(name, folder, name in templated)


def _check_folder(name: str, folder: Path, templated: bool) -> None:
    if not list(folder.glob("*.safetensors")):
        raise RecipeError(
            f"the model {name!r} has no safetensors weights", "convert it; pickles are not read"
        )
    if torn := torn_weights(folder):
        remedy = "copy or download it again (git lfs pull, where it is a pointer)"
        raise RecipeError(f"the model {name!r}: {torn}", remedy)
    configuration = folder / "tokenizer_config.json"
    if templated or (folder / "chat_template.jinja").is_file():
        return
    if not configuration.is_file() or '"chat_template"' not in configuration.read_text(encoding="utf-8"):
        raise RecipeError(
            f"the tokenizer of {name!r} has no chat template", "add chat_template.jinja to its folder"
        )


def _check_fit(plan: Plan, states: list[State]) -> None:
    """Raise RecipeError for models that write or score and whose weights do not match their config.json.

    Models from a Hub that vLLM or an endpoint loads are not checked here; bases are checked by the students' steps.
    """
    run = plan.recipe.run
    asked = {ref for state in states for key, ref in state.step.models.items() if key in ASKED}
    for name in sorted(asked):
        model, folder = plan.models[name].model, Path(plan.models[name].model)
        try:
            if folder.is_dir():
                shapes = stored_shapes(folder)
            elif run.executor == "local" and choose(run.engine(name), run.device).engine == "transformers":
                revision = plan.models[name].revision
                shapes, folder = weight_shapes(model, revision), download_tokenizer(model, revision)
            else:
                continue
            told = misfit(folder, shapes)
        except (ValueError, OSError) as error:
            told = first_line(error)
        if told:
            raise RecipeError(f"the model {name!r}: {told}", MISFIT_REMEDY)


def _check_disk(store: Store, estimates: list[Estimate]) -> None:
    """Raise InputError if known outputs do not fit on the disk; warn on stderr if only upper bounds do not fit."""
    needed = SPARE_BYTES + sum(e.bytes or 0 for e in estimates if e.source != "limits")
    most = SPARE_BYTES + sum(e.bytes or 0 for e in estimates)
    # The folder may not be there yet, and checks make nothing.
    there = _existing(store.root)
    effective = os.access in os.supports_effective_ids
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK, effective_ids=effective):
        raise InputError(f"cannot write in {there}", "choose another folder with --out")
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"{free / 1e6:.0f} MB are free where the runs are kept, and {needed / 1e6:.0f} MB are needed",
            "free some space, or choose another folder with --out",
        )
    if free < most:
        print(
            f"{free / 1e9:.1f} GB are free where the runs are kept; where every answer is as long as it may be, "
            f"{most / 1e9:.1f} GB are needed",
            file=sys.stderr,
        )


def _check_disk_of_students(plan: Plan, store: Store, states: list[State]) -> None:
    """Raise InputError if students, and the files of their training and evaluation, do not fit on the disk.

    This is a lower bound: on a cluster several steps may run at the same time, and one is counted.
    """
    found = [
        state.step.module.disk(_context(plan, state.step))
        for state in states
        if hasattr(state.step.module, "disk")
    ]
    if not found:
        return
    run = plan.recipe.run
    at_once = run.workers if run.executor == "local" else 1
    merges = run.engine("students").engine != "transformers"
    works = sorted((max(disk.work, disk.merged if merges else 0) for disk in found), reverse=True)
    # A local Hub keeps what is published a second time.
    kept = sum(disk.kept for disk in found) * (2 if plan.recipe.hub.endpoint == "local" else 1)
    work = sum(works[:at_once])
    free = shutil.disk_usage(_existing(store.root)).free
    if free < SPARE_BYTES + kept + work:
        raise InputError(
            f"{free / 1e9:.1f} GB are free where the runs are kept, and students need {(kept + work) / 1e9:.1f} GB: "
            f"{kept / 1e9:.1f} GB for {len(found)} of them, {work / 1e9:.1f} GB for checkpoints or merged copies "
            f"of {at_once} at work",
            "free some space, choose another folder with --out, or take fewer or smaller students",
        )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
