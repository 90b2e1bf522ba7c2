"""Details of an evaluation are written row by row, and are lighteval's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.engines import Response
from hubkit.evaluation.tracker import BATCH, open_tracker


def details_of(tracker: Any, folder: Path) -> pa.Table:
    from lighteval.models.abstract_model import ModelConfig
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    tracker.general_config_logger.log_model_info(ModelConfig(model_name="m"))
    for number in range(3 * BATCH + 5):
        # What is null, or absent, in whole batches has a type all the same.
        late = number > 2 * BATCH
        doc = Doc(
            task_name="t|0",
            query=f"{number}?",
            choices=["1"],
            gold_index=0,
            id=str(number),
            specific={"problem": "{}", **({"more": number} if late else {})},
        )
        response = ModelResponse(
            input=[{"role": "user", "content": f"{number}?"}],
            text=["a" * number],
            text_post_processed=["b"] if late else None,
        )
        tracker.details_logger.log("t|0", doc, response, {"accuracy": float(number % 2)})
    tracker.details_logger.aggregate()
    tracker.save()
    assert len(list(folder.glob("results/**/*.json"))) == 1
    (file,) = folder.glob("details/m/*/details_t|0_*.parquet")
    return pq.read_table(file)


def test_details_are_those_that_lighteval_writes(tmp_path: Path) -> None:
    from lighteval.logging.evaluation_tracker import EvaluationTracker

    theirs = details_of(EvaluationTracker(output_dir=str(tmp_path / "theirs")), tmp_path / "theirs")
    ours = details_of(open_tracker(tmp_path / "ours"), tmp_path / "ours")
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    assert ours.equals(theirs)


def test_answers_are_read_whenever_lighteval_looks() -> None:
    from lighteval.models.model_output import ModelResponse

    from hubkit.evaluation.model import KeptResponse

    read = []

    def answers() -> list[Response]:
        read.append(1)
        return [Response("k", "<think>\n1 + 1\n</think>\n\n2", "stop")]

    chat = [{"role": "user", "content": "1 + 1?"}]
    kept = KeptResponse(chat, answers)
    assert not read
    eager = ModelResponse(
        input=chat,
        text=["<think>\n1 + 1\n</think>\n\n2"],
        text_post_processed=["2"],
        reasonings=["1 + 1"],
    )
    assert asdict(kept) == asdict(eager) and kept.final_text == ["2"]
    assert len(read) > 3
