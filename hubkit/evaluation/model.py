"""A student as lighteval sees it: a model whose answers come from one of hubkit's engines.

lighteval's own backends pad token counts, ignore sampling settings or cut prompts (0.13.0); this one
gives exact counts and the same decoding as everywhere else, and keeps the finish reasons, for which
lighteval has no place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from lighteval.models.abstract_model import LightevalModel, ModelConfig
from lighteval.models.model_input import GenerationParameters
from lighteval.models.model_output import ModelResponse
from lighteval.utils.cache_management import SampleCache

from hubkit.config import Sampling
from hubkit.engines import Engine, Request, Response
from hubkit.errors import EngineError, RecipeError
from hubkit.traces.thinking import split

__all__ = ["EngineModel"]


class EngineModel(LightevalModel):  # type: ignore[misc,unused-ignore]
    """Answers documents through an open engine. `responses` holds what the engine said, by document id."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: Any,
        sampling: Sampling,
        system: str,
        seed: int,
        cache: Path,
        progress: Callable[[int, int], None],
    ) -> None:
        generation = GenerationParameters(
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or None,
            seed=seed,
        )
        self.config = ModelConfig(
            model_name=name,
            generation_parameters=generation,
            system_prompt=system or None,
            cache_dir=str(cache),
        )
        self.responses: dict[str, Response] = {}
        # lighteval's cache of answers goes by model name, not weights; nothing here reads or fills it,
        # but the pipeline wants one to be there.
        self._cache = SampleCache(self.config)
        self._engine, self._tokenizer, self._sampling = engine, tokenizer, sampling
        self._system, self._seed, self._progress = system, seed, progress

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def add_special_tokens(self) -> bool:
        return False

    @property
    def max_length(self) -> int:
        return int(self._tokenizer.model_max_length)

    def greedy_until(self, docs: list[Any]) -> list[Any]:
        """Answer documents, decoding as the benchmark says (lighteval calls all generation by this name)."""
        if any(doc.fewshot_samples for doc in docs):
            raise RecipeError(
                "few-shot prompts are not supported for chat students", "ask for the task as name|0"
            )
        system = [{"role": "system", "content": self._system}] if self._system else []
        requests = [
            Request(
                doc.id, [*system, {"role": "user", "content": doc.query}], self._sampling, self._seed + place
            )
            for place, doc in enumerate(docs)
        ]

        async def drain() -> None:
            async for response in self._engine.stream(requests):
                if response.finish_reason == "error":
                    raise EngineError(
                        f"problem {response.key}: {response.error}", "mend the engine or max_tokens"
                    )
                self.responses[response.key] = response
                self._progress(len(self.responses), len(docs))

        asyncio.run(drain())
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Any:
        response = self.responses[request.key]
        thought = split(response.text, response.reasoning)
        return ModelResponse(
            input=request.messages,
            text=[response.text],
            output_tokens=[response.token_ids],
            # What is judged: the text after the thinking span; a span that never closed leaves nothing.
            text_post_processed=[thought.solution],
            reasonings=[thought.reasoning],
        )

    def loglikelihood(self, docs: list[Any]) -> NoReturn:
        raise RecipeError(
            "this task scores log-likelihoods, which engines do not give", "choose a generative task"
        )

    def loglikelihood_rolling(self, docs: list[Any]) -> NoReturn:
        self.loglikelihood(docs)
