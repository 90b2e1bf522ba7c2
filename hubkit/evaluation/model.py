"""A student as a lighteval model, whose answers come from one of hubkit's engines.

    lighteval's Doc(query="State the final answer … 47 + 38 - 12 =", id="7")
    -> ModelResponse(text=["<think>\\n…\\n</think>\\n\\nThe answer is …"],
                     text_post_processed=["The answer is …"])

lighteval's own backends pad token counts, ignore sampling settings or cut prompts (0.13.0); this one
gives exact counts and the same decoding as everywhere else, and keeps the finish reasons, for which
lighteval has no place. Answers stay in the journal: lighteval holds all of them until the end, and reads each text from
there when it looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from lighteval.models.abstract_model import LightevalModel, ModelConfig
from lighteval.models.model_input import GenerationParameters
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.prompt_manager import PromptManager
from lighteval.utils.cache_management import SampleCache

from hubkit.engines import Engine, Request, Response
from hubkit.errors import EngineError, RecipeError
from hubkit.evaluation.tasks import check_words
from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.traces.journal import Journal, Key, answer, request_hash, request_seed
from hubkit.traces.thinking import split

__all__ = ["EngineModel", "KeptResponse", "document"]


def document(doc: Any, sample: int = 0) -> Key:
    """Returns the key of an answer to a document; lighteval numbers documents from 0 in each task."""
    return Key(f"{doc.task_name}/{doc.id}", sample)


class KeptResponse(ModelResponse):  # type: ignore[misc,unused-ignore]
    """The answers to a document in lighteval's form, read from the journal at each access.

    No token ids: they would be three quarters of the published details.
    """

    def __init__(self, prompt: list[dict[str, str]], read: Callable[[], list[Response]]) -> None:
        super().__init__(input=prompt)
        self._read = read

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _READ:  # which the base's own constructor would fill
            super().__setattr__(name, value)

    @property
    def text(self) -> list[str]:
        return [response.text for response in self._read()]

    @property
    def text_post_processed(self) -> list[str]:
        """Returns the text that is judged: what follows the thinking span; "" if the span never closed."""
        return [split(response.text, response.reasoning).solution for response in self._read()]

    @property
    def reasonings(self) -> list[str]:
        return [split(response.text, response.reasoning).reasoning for response in self._read()]


_READ: Final = ("text", "text_post_processed", "reasonings")


class EngineModel(LightevalModel):  # type: ignore[misc,unused-ignore]
    """Answers documents through an open engine; `response` returns the engine's responses."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: Any,
        sampling: Sampling,
        system: str,
        journal: Journal,
        context: StepContext,
        cache: Path,
        samples: int = 1,
        template: dict[str, str] | None = None,
    ) -> None:
        """`samples`: answers to each document; `template`: variables for the chat template."""
        generation = GenerationParameters(
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or None,
            seed=0,
        )
        self.config = ModelConfig(
            model_name=name,
            generation_parameters=generation,
            system_prompt=system or None,
            cache_dir=str(cache),
        )
        # lighteval's cache of answers goes by model name, not weights; nothing here reads or fills it,
        # but the pipeline wants one to be there.
        self._cache = SampleCache(self.config)
        self._engine, self._tokenizer, self._sampling = engine, tokenizer, sampling
        self._journal, self._context, self._samples = journal, context, samples
        self._template = template or {}
        self._prompts = PromptManager(use_chat_template=True, system_prompt=system or None)

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
        """Answer documents, decoding as the benchmark says (lighteval calls all generation by this name).

        Stop sequences of a task are not used: they are for models that continue text, and "\\n\\n" or
        "Question:" would end a student within its reasoning.
        """
        check_words(docs[0].task_name, docs)
        keys = [(doc, document(doc, sample)) for doc in docs for sample in range(self._samples)]

        def requests() -> Iterator[tuple[Key, Request]]:
            return ((key, self._request(doc, key)) for doc, key in keys)

        if self._journal.left(requests()):
            answer(
                self._context,
                self._engine,
                self._journal,
                requests(),
                len(keys),
                on_response=_refuse_errors,
            )
        return [self._answer(doc) for doc in docs]

    def _request(self, doc: Any, key: Key) -> Request:
        # The engine applies the chat template; examples of a few-shot task become earlier turns.
        messages = self._prompts.prepare_prompt_api(doc)
        return Request(key.text, messages, self._sampling, request_seed(0, key), self._template)

    def response(self, doc: Any, sample: int = 0) -> Response:
        """Returns the engine's response to a document."""
        key = document(doc, sample)
        response = self._journal.get(key, request_hash(self._request(doc, key)))
        assert response is not None, f"{key} was answered"
        return response

    def _answer(self, doc: Any) -> KeptResponse:
        return KeptResponse(
            self._prompts.prepare_prompt_api(doc),
            lambda: [self.response(doc, sample) for sample in range(self._samples)],
        )

    def loglikelihood(self, docs: list[Any]) -> NoReturn:
        raise RecipeError(
            "this task scores log-likelihoods, which engines do not give", "choose a generative task"
        )

    def loglikelihood_rolling(self, docs: list[Any]) -> NoReturn:
        self.loglikelihood(docs)


def _refuse_errors(response: Response) -> None:
    # A missing answer is not a wrong one. It is not kept, so that the next run asks again.
    if response.finish_reason == "error":
        raise EngineError(
            f"no answer to problem {response.key}: {response.error}", "fix the engine or max_tokens"
        )
