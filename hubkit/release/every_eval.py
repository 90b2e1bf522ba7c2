"""Every Eval Ever: results in the common schema of the EvalEval Coalition, which has no converter for lighteval.

    a finished lighteval run of org/student on gsm8k|0, 1,319 problems
        -> data/gsm8k/org/student/<uuid>.json            score, interval, decoding, where problems and answers come from
           data/gsm8k/org/student/<uuid>_samples.jsonl   a line per problem: question, known answer, output, score

The layout is that of its datastore (https://huggingface.co/datasets/evaleval/EEE_datastore). Every record is validated
against the schemas of its package, version 0.3.0 (`schemas/`), before it is written.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hubkit.errors import InputError
from hubkit.release.lighteval_run import Score, other_shares, read_run
from hubkit.section import is_repo_id
from hubkit.students.gates import level_of

if TYPE_CHECKING:
    from hubkit.release.check.published import Published

__all__ = ["Origin", "export", "export_release"]

SCHEMA_VERSION: Final = "0.3.0"
_UNPORTABLE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Origin:
    """Facts that a run's files do not contain."""

    model: str
    """org/name of the model on the Hub."""
    evaluator: str
    """Who evaluated it: a namespace of the Hub."""
    collection: str
    """Folder of the datastore, mostly the benchmark's name."""
    dataset: str = ""
    """Repo id of the problems; "" takes what lighteval read."""
    split: str = ""
    source: str = ""
    """What the results are part of, such as "hubkit release local/nano"."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version, of what evaluated."""
    engine: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    """More of the model: its base, its commit."""
    level: Mapping[str, str] = field(default_factory=dict)
    """What its chat template was given, of a mixture: {"reasoning_effort": "low"}."""
    by_hubkit: bool = False
    """Whether hubkit evaluated it, of which more is known than a run of lighteval says."""


def export(score: Score, origin: Origin, out: Path, now: float | None = None) -> list[Path]:
    """Write one run's score and answers below `out`. Returns the files written.

    The same run gives the same file names. Raises InputError for a run without details, or whose values the schema
    does not allow.
    """
    if score.details is None:
        raise InputError(
            f"{score.results.name} has no details beside it", "give the folder of a finished run"
        )
    if not is_repo_id(origin.model, owned=True):
        raise InputError(f"{origin.model!r} is not a model on the Hub", "name it: --model org/name")
    of = "\n".join((origin.model, score.task, *origin.level.values(), ""))
    digest = hashlib.sha256(of.encode() + score.details.read_bytes()).digest()
    name = str(uuid.UUID(bytes=digest[:16], version=4))
    organisation, model = origin.model.split("/")
    collection = _UNPORTABLE.sub("-", origin.collection).strip("-.") or "benchmark"
    folder = out / "data" / collection / organisation / model
    stamp = f"{time.time() if now is None else now:.0f}"
    # Tasks and levels of one model are evaluations of their own, written in the same second.
    unique = f"{collection}-{name[:8]}/{origin.model}/{stamp}"
    about = {"id": unique, "result": f"{score.task}/{score.metric}"}
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / f"{name}_samples.jsonl"
    temporary = samples.with_suffix(".part")
    checksum, rows = hashlib.sha256(), 0
    with temporary.open("wb") as file:
        for record in _samples(score, origin, about):
            _validate("instance_level_eval", record)
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
            checksum.update(line)
            file.write(line)
            rows += 1
    record = _aggregate(score, origin, about, stamp) | {
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": samples.relative_to(out).as_posix(),
            "hash_algorithm": "sha256",
            "checksum": checksum.hexdigest(),
            "total_rows": rows,
        }
    }
    _validate("eval", record)
    temporary.replace(samples)
    whole = folder / f"{name}.json"
    whole.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [whole, samples]


def export_release(release: Published, out: Path) -> list[Path]:
    """Write the evaluations of a published release below `out`. Returns the files written."""
    manifest, written = release.manifest, []
    for step, record in release.facts.kind("evaluation").items():
        student, benchmark = record.config["student"], record.config["benchmark"]
        (score,) = read_run(release.facts.folders[step], main=True)
        own = bool(benchmark.get("problems"))
        collection = f"{manifest.recipe}-{benchmark['name']}" if own else score.dataset.rpartition("/")[2]
        packages = record.environment.get("packages", {})
        parts = {"base": record.config["base"], "variant": record.config.get("variant") or ""}
        model = manifest.models.get(student)
        repo = release.repos.get(model or "")
        revision = repo.head if repo else manifest.pinned[student]["revision"]
        origin = Origin(
            model=model or manifest.pinned[student]["model"],
            evaluator=release.name.partition("/")[0],
            collection=collection,
            dataset=manifest.problems or "" if own else "",
            split="test" if own else "",
            source=f"hubkit release {release.name}",
            versions={name: str(version) for name, version in packages.items()},
            details=parts | {"revision": revision},
            level=level_of(record.config),
            by_hubkit=True,
        )
        written += export(score, origin, out)
    return written


def _aggregate(score: Score, origin: Origin, about: Mapping[str, str], stamp: str) -> dict[str, Any]:
    organisation, model = origin.model.split("/")
    dataset = origin.dataset or score.dataset
    uncertainty: dict[str, Any] = {}
    if score.low is not None and score.high is not None:
        method = "Wilson" if score.correct is not None else "Wilson, by problems"
        interval = {"lower": score.low, "upper": score.high, "confidence_level": 0.95, "method": method}
        uncertainty = {"confidence_interval": interval, "num_samples": score.n}
    source: dict[str, Any] = {
        "dataset_name": origin.collection,
        "source_type": "hf_dataset",
        "hf_repo": dataset,
        "hf_split": origin.split or ", ".join(score.splits),
        "samples_number": score.n,
        "additional_details": _texts({"config": score.config, "revision": score.revision}),
    }
    arguments: dict[str, Any] = {"temperature": score.temperature}
    arguments |= {"max_tokens": score.max_tokens} if score.max_tokens else {}
    asked = {"shots": str(score.shots)}
    kept = {"deployment_type": "unknown", "model_availability": "unknown"}
    if origin.by_hubkit:
        arguments["reasoning"] = True
        asked["chat_template"] = "applied"
        kept = {"deployment_type": "self_deployed", "model_availability": "open_weights"}
    result: dict[str, Any] = {
        "evaluation_result_id": about["result"],
        "evaluation_name": score.name,
        "source_data": source,
        "metric_config": {
            "metric_id": "accuracy" if score.correct is not None else score.metric,
            "metric_name": score.metric,
            "metric_kind": "accuracy",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": {"score": score.share} | ({"uncertainty": uncertainty} if uncertainty else {}),
        "generation_config": {
            "generation_args": arguments,
            "additional_details": asked,
        },
    }
    others = [
        result
        | {
            "evaluation_result_id": f"{score.task}/{name}",
            "metric_config": result["metric_config"] | {"metric_id": name, "metric_name": name},
            "score_details": {"score": value},
        }
        for name, value in other_shares(score).items()
    ]
    library = {
        "name": "lighteval",
        "version": origin.versions.get("lighteval", "unknown"),
        "additional_details": _texts({"hubkit": origin.versions.get("hubkit", "")}),
    }
    info: dict[str, Any] = {
        "name": model,
        "id": origin.model,
        "developer": organisation,
        "additional_details": kept | _texts({**origin.details, **origin.level}),
    }
    if origin.engine:
        version = origin.versions.get(origin.engine, "unknown")
        info["inference_engine"] = {"name": origin.engine, "version": version}
    record = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": about["id"],
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": origin.source or "lighteval run",
            "source_type": "evaluation_run",
            "source_organization_name": origin.evaluator,
            "evaluator_relationship": "first_party" if origin.evaluator == organisation else "third_party",
        },
        "eval_library": library,
        "model_info": info,
        "evaluation_results": [result, *others],
    }
    return record | ({"evaluation_timestamp": score.date} if score.date else {})


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    """The schema wants texts, and nothing that is not known."""
    return {name: str(value) for name, value in values.items() if value}


def _samples(score: Score, origin: Origin, about: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A record per problem, from lighteval's details."""
    import pyarrow.parquet as pq

    assert score.details is not None
    columns = ["doc", "metric", "model_response"]
    try:
        with pq.ParquetFile(score.details) as file:
            for batch in file.iter_batches(batch_size=256, columns=columns):
                for row in batch.to_pylist():
                    yield _sample(row, score, origin, about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(
            f"{score.details.name} is no details file of lighteval: {line}", "evaluate it again"
        ) from None


def _sample(row: Mapping[str, Any], score: Score, origin: Origin, about: Mapping[str, str]) -> dict[str, Any]:
    doc, response, value = row["doc"], row["model_response"], float(row["metric"][score.metric])
    golds = doc["gold_index"] if isinstance(doc["gold_index"], list) else [doc["gold_index"]]
    known = [str(doc["choices"][gold]).strip() for gold in golds]
    texts = [str(text) for text in response["text"]]
    thoughts = [str(thought) for thought in response.get("reasonings") or [] if thought]
    tokens = [len(ids) for ids in response.get("output_tokens") or []]
    text = doc["query"]
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": about["id"],
        "model_id": origin.model,
        "evaluation_name": score.name,
        "evaluation_result_id": about["result"],
        "sample_id": str(doc["id"]),
        "sample_hash": hashlib.sha256((text + json.dumps(known, ensure_ascii=False)).encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": text, "reference": known},
        "output": {"raw": texts, "reasoning_trace": thoughts or None},
        "answer_attribution": [],
        # Of several answers, whether all are right; the score is their share.
        "evaluation": {"score": value, "is_correct": value >= 1},
        "metadata": {"output_tokens": ", ".join(map(str, tokens))} if any(tokens) else None,
    }


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft7Validator

    text = (resources.files("hubkit.release") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    return Draft7Validator(json.loads(text))


def _validate(name: str, record: Mapping[str, Any]) -> None:
    error = next(iter(_validator(name).iter_errors(record)), None)
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the record"
        line = " ".join(error.message.split())[:200]
        raise InputError(f"Every Eval Ever does not allow {where}: {line}", "look at the results file")
