"""Estimates of a step's tokens, seconds and bytes, for `hubkit recipe plan` and for the check of the disk.

An earlier record of the same step on this machine is best, scaled to the current number of rows. Else the outputs of
finished steps before it count; else the rows of sources and the recipe's limits, which real answers stay below. Seconds
are those of one CPU thread; for models of unknown size or on a GPU the time stays unknown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from hubkit.errors import HubError
from hubkit.hub import weight_headers
from hubkit.push import PUSHES
from hubkit.recipe.amounts import Amount, Flow, Look, flows, rows_of
from hubkit.recipe.graph import Plan, Step
from hubkit.recipe.pins import recall
from hubkit.recipe.pipeline import State
from hubkit.recipe.runtime import Run
from hubkit.records import count_rows
from hubkit.store import Record, Store
from hubkit.traces.answers import Answers
from hubkit.traces.compressors import Compressor
from hubkit.traces.journal import request_hash
from hubkit.traces.variants import VARIANTS

__all__ = ["Answered", "Estimate", "answered", "estimate_all"]

TRAIN_FLOPS: Final = 4e10
"""Operations per second of one CPU thread in training, 6 x parameters per token; TRL reached 4.2e10 with a model of
0.5M parameters."""
GENERATE_FLOPS: Final = 1e10
"""Operations per second of one CPU thread in batched generation, 2 x parameters per token; small models are limited by
overhead instead."""
ROW_BYTES: Final = 2.5
"""Bytes of a token in a variant's Parquet file, which has the text twice (`reasoning` and `messages`): 0.4 to 0.6 per
character were measured on published traces of four models."""
ANSWER_BYTES: Final = 1.3
"""Bytes of a token in the Parquet file of unprocessed answers."""
PROBLEM_BYTES: Final = 500
TOKENIZE: Final = 100_000
"""Tokens of a variant that one core tokenises per second; 60,000 to 330,000 were measured, including the checks."""
JOINED: Final = 100_000_000
"""Tokens per second when shards are joined: their files are read for their digests."""
TOKEN_BYTES: Final = 4.3
"""Bytes of a token in its Arrow file, with keys and spans."""
UPLOAD: Final = 30e6
"""Bytes per second that are sent to the Hub: those of a line of 250 Mbit/s."""
REPO_S: Final = 6.0
"""Seconds per repo besides its upload: to create, commit and tag it and add it to the collection."""
LOCAL_UPLOAD: Final = 1.5e8
"""Bytes per second that are sent to the local Hub; 3.4 GB took 23 s."""
GPUS: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""Files of which one exists where there is a GPU: NVIDIA's, any under Windows, AMD's."""
LOOKED_AT: Final = 10_000
"""Maximum requests whose answers `answered` looks for, which takes half a second."""


@dataclass(frozen=True)
class Estimate:
    """Values are None if they cannot be known before the run."""

    tokens: int | None
    seconds: float | None
    bytes: int | None
    source: str
    """Where it comes from: record (the step is done), earlier run, inputs (steps before it are done) or limits."""
    left_out: int = 0
    """Outputs of unknown size, such as students of bases that the Hub does not show; `bytes` is without them."""

    def cells(self) -> tuple[str, str, str]:
        """For the plan's table."""
        seconds = "?" if self.seconds is None else f"{self.seconds:.1f}"
        size = "?" if self.bytes is None else _short(self.bytes) + ("+" if self.left_out else "")
        tokens = "?" if self.tokens is None and self.seconds is None else _short(self.tokens)
        return tokens, seconds, size


def _short(number: int | None) -> str:
    if number is None:
        return "-"
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.0f}{unit}" if unit == "" or number >= 100 else f"{number:.1f}{unit}"
        number /= 1000  # type: ignore[assignment]
    return f"{number:.1f}T"


UNKNOWN: Final = Estimate(None, None, None, "limits")


def estimate_all(
    plan: Plan, store: Store, states: Sequence[State], remember: bool = False
) -> dict[str, Estimate]:
    """Returns step name -> Estimate, for every step of the plan; `states` are those of all its steps.

    With `remember`, the Hub's answers about pinned models and datasets are kept in the run's folder.
    """
    look = recall(store.root, remember)
    done = {state.step.name: state.record for state in states if state.record}
    flow = flows(plan, done, look)
    result: dict[str, Estimate] = {}
    for state in states:
        name = state.step.name
        if state.record:
            result[name] = _of_record(state.record, "record")
        elif state.step.kind == "publish":
            result[name] = _of_publish(plan, state.step, result)  # the last step: all others are known
        elif earlier := store.records(name):
            result[name] = _of_earlier(earlier[0], flow[name].given)
        else:
            result[name] = _reckoned(plan, state.step, flow[name], look)
    return result


class Answered(NamedTuple):
    """The number of a step's requests that were answered before."""

    number: int
    exact: bool
    """Whether all requests were checked; otherwise the number is extrapolated from some of them."""

    def __str__(self) -> str:
        return f"{'' if self.exact else 'about '}{self.number:,} answers are there"


def answered(plan: Plan, store: Store, states: list[State]) -> dict[str, Answered]:
    """Returns step name -> the number of its requests that were answered before, for the steps that can run now.

    For compressors only first attempts count: which traces need another attempt is not known. If there are more than
    LOOKED_AT requests in all, only some of each step are checked.
    """
    done = {state.step.name: state.record for state in states if state.record}
    found: list[tuple[Step, str, Path, int]] = []
    for state in states:
        for model, source in (("teacher", "problems"), ("compressor", "raw")):
            step = state.step
            if state.state == "ready" and model in step.models and "engine" in step.runtime:
                folder = store.folder(step.inputs[source], done[step.inputs[source]].key)
                found.append((step, model, folder, _asked(step, model, folder)))
    most = LOOKED_AT // max(1, len(found)) if sum(number for *_, number in found) > LOOKED_AT else None
    result: dict[str, Answered] = {}
    for step, model, folder, number in found:
        answers = Answers(store.root, plan.models[step.models[model]].digest)
        if not answers.any():
            continue
        requests = list(step.module.requests_of(step.config, folder, most))
        had = answers.count(request_hash(request) for _, request in requests)
        if had:
            share = had / len(requests)
            exact = len(requests) == number
            result[step.name] = Answered(had if exact else round(share * number), exact)
    return result


def _asked(step: Step, model: str, folder: Path) -> int:
    """Requests of a step, before any second attempt."""
    index, shards = step.config["shard"]
    if model == "teacher":
        rows = count_rows(folder / "problems.parquet")
        return len(range(index, rows, shards)) * int(step.config["samples"])
    return len(range(index, count_rows(folder / "data.parquet"), shards))


def _of_record(record: Record, source: str) -> Estimate:
    names = ("completion_tokens", "tokens", "train_tokens", "output_tokens", "reasoning_tokens")
    tokens = next((int(record.metrics[name]) for name in names if name in record.metrics), None)
    if judged := record.metrics.get("judge_completion_tokens"):
        tokens = int(judged) + (tokens or 0)
    return Estimate(tokens, record.seconds, sum(entry.size for entry in record.files), source)


def _of_earlier(record: Record, given: Amount | None) -> Estimate:
    """Returns the cost of an earlier run, scaled to the current number of rows."""
    then, told = rows_of(record), _of_record(record, "earlier run")
    if not then or given is None:
        return told
    share = given.rows / then
    return replace(
        told,
        tokens=None if told.tokens is None else round(told.tokens * share),
        seconds=round((told.seconds or 0) * share, 3),
        bytes=round((told.bytes or 0) * share),
    )


def _reckoned(plan: Plan, step: Step, flow: Flow, look: Look) -> Estimate:
    given, made = flow
    if step.kind in ("contamination", "report"):
        return Estimate(None, 5, 1_000_000, "limits")
    if given is None:
        return replace(UNKNOWN, bytes=_saved_by(plan, step, look)) if step.kind == "student" else UNKNOWN
    source = "inputs" if given.counted else "limits"
    match step.kind:
        case "problems":
            return Estimate(None, 3, given.rows * PROBLEM_BYTES, source)
        case "traces" | "judge" | "compress":
            return _of_models(plan, step, given, made or given)
        case "evaluation":
            tokens = given.rows * step.config["benchmark"]["sampling"]["max_tokens"]
            return _generation(plan, step, "base", tokens)
        case "student":
            return _of_student(plan, step, given, source, look)
        case "tokens" | "tokenise":
            tokens = given.tokens or 0
            seconds = 1 + tokens / (TOKENIZE if "data" in step.inputs else JOINED)
            return Estimate(tokens, seconds, int(tokens * TOKEN_BYTES), source)
        case "matched" | "rows":
            return Estimate(None, 1 + given.rows / 50_000, given.rows * 40, source)
        case _:  # variants, and what they are put together from
            size = int((given.tokens or 0) * ROW_BYTES)
            return Estimate(None, 1 + given.rows / 500, size, source)


def _of_models(plan: Plan, step: Step, given: Amount, made: Amount) -> Estimate:
    """Returns the estimate of a step that asks models, if every answer is as long as allowed."""
    recipe, config = plan.recipe, step.config
    parts = []
    for model, makers in (("teacher", recipe.origins()), ("compressor", recipe.compressors)):
        if model in step.models:
            maker = next(maker for maker in makers if maker.name == config[model])
            if (longest := maker.longest()) is None:
                parts.append(UNKNOWN)
            else:
                long = max(1, given.tokens or 0) // max(1, given.rows)
                texts = maker.requests(long) if isinstance(maker, Compressor) else 1
                parts.append(_generation(plan, step, model, given.rows * texts * longest))
    if judge := config.get("judge"):
        parts.append(_generation(plan, step, "judge", given.rows * judge["sampling"]["max_tokens"]))
    if not parts:  # traces that exist
        return Estimate(None, 1 + given.rows / 500, int((made.tokens or 0) * ANSWER_BYTES), "limits")
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return Estimate(
        sum(part.tokens or 0 for part in parts),
        sum(seconds) if len(seconds) == len(parts) else None,
        sum(part.bytes or 0 for part in parts),
        "limits",
    )


def _on_cpu(run: Run, kind: str) -> bool:
    """Whether steps of a kind run on a CPU, as far as that can be seen from here without importing torch."""
    if run.device != "auto":
        return run.device == "cpu"
    asked = run.resources_of(kind)
    match run.executor:
        case "hf-jobs":
            return asked.flavor.startswith("cpu")
        case "ray" | "slurm":
            return asked.gpus == 0
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return hidden or not any(place.exists() for place in GPUS)


def _generation(plan: Plan, step: Step, model: str, tokens: int) -> Estimate:
    size = _parameters(plan, step.models[model])
    engine = step.runtime["judge_engine" if model == "judge" else "engine"]
    known = size and _on_cpu(plan.recipe.run, step.kind) and engine["engine"] in ("auto", "transformers")
    seconds = 2 * size * tokens / GENERATE_FLOPS if size and known else None
    return Estimate(tokens, seconds, int(tokens * ANSWER_BYTES), "limits")


def _of_student(plan: Plan, step: Step, given: Amount, source: str, look: Look) -> Estimate:
    method = plan.recipe.students.methods[step.config["method"]]
    trained = (
        method.tokens(given.rows) if given.tokens is None else method.tokens_of(given.rows, given.tokens)
    )
    size = _parameters(plan, step.models["base"])
    known = trained is not None and size and _on_cpu(plan.recipe.run, step.kind)
    seconds = 6 * size * (trained or 0) / TRAIN_FLOPS if known else None
    return Estimate(trained, seconds, _saved_by(plan, step, look), source)


def _of_publish(plan: Plan, step: Step, known: dict[str, Estimate]) -> Estimate:
    """Returns the time of the upload, and some seconds for each repo, PUSHES at a time."""
    sent = ("problems", "student", "evaluation", *VARIANTS)
    parts = [known[of] for of in step.inputs.values() if of.partition("/")[0] in sent and of in known]
    sizes = [part.bytes for part in parts if part.bytes is not None]
    here = {name: _files(plan, name) for name in plan.models if "/" not in name}
    repos = sum(of.partition("/")[0] in ("student", "raw") for of in step.inputs.values()) + 3
    repos += sum(size > 0 for size in here.values())
    if not sizes:
        return replace(UNKNOWN, left_out=len(parts))
    size = sum(sizes) + sum(here.values())
    local = plan.recipe.hub.endpoint == "local"
    seconds = size / LOCAL_UPLOAD + repos if local else size / UPLOAD + repos * REPO_S / PUSHES
    source = "limits" if any(part.source == "limits" for part in parts) else "inputs"
    return Estimate(None, seconds, size, source, left_out=len(parts) - len(sizes))


def _parameters(plan: Plan, name: str) -> int:
    """Of a local model, from its files at 2 bytes each; 0 when it is still on the Hub."""
    return _files(plan, name) // 2


def _files(plan: Plan, name: str) -> int:
    """Bytes of the weights of a local model."""
    folder = Path(plan.models[name].model)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0


def _weights(plan: Plan, name: str, look: Look) -> dict[str, Any] | None:
    """Returns what a student's size depends on: bytes and parameters of its base, and the inputs and outputs of layers
    that an adapter may train, by name. Returns None if the Hub does not say."""
    model = plan.models[name]

    def find() -> dict[str, Any] | None:
        from huggingface_hub import get_local_safetensors_metadata
        from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

        folder = Path(model.model)
        try:
            found = (
                get_local_safetensors_metadata(folder)
                if folder.is_dir()
                else weight_headers(model.model, model.revision)
            )
        except (HubError, NotASafetensorsRepoError, SafetensorsParsingError, OSError, ValueError):
            return None  # `preflight` says what is wrong with it
        whole = {"bytes": 0, "parameters": 0}
        layers: dict[str, int] = {}
        for file in found.files_metadata.values():
            for tensor, info in file.tensors.items():
                whole["bytes"] += info.data_offsets[1] - info.data_offsets[0]
                whole["parameters"] += info.parameter_count
                layer = tensor.removesuffix(".weight").rpartition(".")[2]
                if len(info.shape) == 2 and layer not in _NOT_ADAPTED:
                    layers[layer] = layers.get(layer, 0) + sum(info.shape)
        return {**whole, "layers": layers}

    return look(f"weights/{model.model}", model.revision, find)  # type: ignore[no-any-return]


_NOT_ADAPTED: Final = ("embed_tokens", "wte", "lm_head", "embed_out")
"""Of the layers of which "all-linear" leaves out the last and those that are no linear ones."""


def _saved_by(plan: Plan, step: Step, look: Look) -> int | None:
    """Returns the bytes of a student, which is stored in its base's type. Returns None if that is unknown."""
    weights, lora = _weights(plan, step.models["base"], look), step.config.get("lora")
    if weights is None:
        return None
    if lora is None:
        return int(weights["bytes"])
    targets = lora.get("target_modules", "all-linear")
    ends = [
        size
        for name, size in weights["layers"].items()
        if isinstance(targets, str) or name in {target.rpartition(".")[2] for target in targets}
    ]
    return int(sum(ends) * int(lora["r"]) * weights["bytes"] / max(1, weights["parameters"]))
