"""Several answers to each problem, each scored as a single one: avg@n, pass@n and maj@n, by lighteval's names.

    four answers, of which the task's own metric finds the first and the last right, both read as 73, the others as 71
    -> {"avg@n:n=4": 0.5, "pass@k:k=4&n=4": 1.0, "maj@n:n=4": 1.0}

lighteval's own metrics of this kind (0.13.0) are there for some tasks only, and its maj@n compares whole texts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hubkit.evaluation.statistics import majority_right

__all__ = ["Sampled", "Scorer", "of_metric"]

Scorer = Callable[[Any, str], tuple[float, str | None]]
"""(document, text after the thinking span) -> its score, and the answer as it was read (None if unknown)."""


class Sampled:
    """Scores of each answer to each document, for `samples` answers."""

    def __init__(self, samples: int, score: Scorer, reads: bool = True) -> None:
        """`reads`: whether `score` returns the answer that it read; if not, there is no majority."""
        self.samples, self.reads = samples, reads
        self.scores: dict[tuple[str, str], list[tuple[float, str | None]]] = {}
        """(task, id) of a document -> score and answer, in the order of its answers."""
        self._score = score

    def metric(self) -> Any:
        """Returns all of them as one metric of lighteval."""
        import numpy as np
        from lighteval.metrics.metrics_sample import SampleLevelComputation
        from lighteval.metrics.utils.metric_utils import SampleLevelMetricGrouping
        from lighteval.tasks.requests import SamplingMethod

        n, note, reads = self.samples, self._note, self.reads
        average, some, most = f"avg@n:n={n}", f"pass@k:k={n}&n={n}", f"maj@n:n={n}"

        class OfSeveral(SampleLevelComputation):  # type: ignore[misc,unused-ignore]
            def num_samples(self) -> int:
                return n

            def compute(self, doc: Any, model_response: Any, **_: Any) -> dict[str, float]:
                found = note(doc, model_response.final_text)
                scores = [score for score, _ in found]
                values = {average: sum(scores) / n, some: max(scores)}
                if reads:
                    right = majority_right((answer, score >= 1) for score, answer in found)
                    values[most] = float(right)
                return values

        names = [average, some, *([most] if reads else [])]
        return SampleLevelMetricGrouping(
            metric_name=names,
            higher_is_better=dict.fromkeys(names, True),
            category=SamplingMethod.GENERATIVE,
            sample_level_fn=OfSeveral(),
            corpus_level_fn=dict.fromkeys(names, np.mean),
        )

    def _note(self, doc: Any, texts: list[str]) -> list[tuple[float, str | None]]:
        found = [self._score(doc, text) for text in texts]
        self.scores[doc.task_name, doc.id] = found
        return found


def of_metric(samples: int, metric: Any) -> Sampled:
    """Several answers by a metric of lighteval. pass@k and its like score each answer by itself, too."""
    from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
    from lighteval.metrics.metrics_sample import SamplingMetric
    from lighteval.models.model_output import ModelResponse

    function = metric.sample_level_fn
    sampling = isinstance(function, SamplingMetric)
    inner = getattr(function.compute_score, "__self__", None) if sampling else function

    def score(doc: Any, text: str) -> tuple[float, str | None]:
        doc = copy.copy(doc)
        doc.specific = dict(doc.specific or {})  # extractive metrics note here what they read
        if sampling:
            doc.choices = [function.preprocess(choice) for choice in doc.choices]
            response = ModelResponse(text=[function.preprocess(text)])
            value = function.compute_score(doc, response)
        else:
            response = ModelResponse(text=[text])
            value = next(iter(metric.compute_sample(doc=doc, model_response=response).values()))
        read = doc.specific.get("extracted_predictions")
        return float(value), str(read[0]) if read else None

    return Sampled(samples, score, isinstance(inner, MultilingualExtractiveMatchMetric))
