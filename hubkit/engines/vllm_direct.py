"""vLLM's engine without its API server: python vllm_direct.py --model FOLDER --host … --port … ARGUMENT …

Serves AsyncLLM over a minimal HTTP front end, which takes the requests that the vllm engine sends in the form of
vLLM's own server. A request costs less here, which matters when answers are short or cores are few:
`benchmarks/engine_vllm.py`. Arguments are AsyncEngineArgs' own; those of the API server alone are refused. `--keep
OPEN CLOSE` are marks of thinking spans that a recipe adds. The key is read from VLLM_API_KEY.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import itertools
import json
import os
import signal
import sys
from typing import Any, Final

from aiohttp import web

from hubkit.engines.base import hidden_tokens

LARGEST_REQUEST: Final = 64 * 2**20
"""Bytes: far more than the longest prompt that a model takes."""


class Front:
    """Three routes before an AsyncLLM."""

    def __init__(self, llm: Any, marks: list[str]) -> None:
        self._llm = llm
        self._tokenizer = llm.get_tokenizer()
        self._hidden = hidden_tokens(self._tokenizer, marks)
        self._number = itertools.count()
        self._key = os.environ.get("VLLM_API_KEY", "")

    def application(self) -> web.Application:
        application = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[self._authorized])
        application.router.add_get("/health", self._health)
        application.router.add_post("/tokenize", self._tokenize)
        application.router.add_post("/v1/chat/completions", self._complete)
        return application

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if request.path != "/health" and not hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            return web.json_response({"error": "Unauthorized"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _health(self, _: web.Request) -> web.Response:
        await self._llm.check_health()
        return web.Response()

    async def _tokenize(self, request: web.Request) -> web.Response:
        ids = self._ids(await request.json())
        return web.json_response({"token_strs": self._tokenizer.convert_ids_to_tokens(ids)})

    async def _complete(self, request: web.Request) -> web.Response:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        body = await request.json()
        ids = self._ids(body)
        longest = self._llm.model_config.max_model_len
        if len(ids) + body["max_tokens"] > longest:  # the engine alone would cut the answer
            message = f"{len(ids)} tokens of prompt and max_tokens of {body['max_tokens']} exceed {longest}"
            return web.json_response({"error": {"message": message}}, status=400)
        try:
            sampling = SamplingParams(
                max_tokens=body["max_tokens"],
                temperature=body["temperature"],
                top_p=body["top_p"],
                top_k=body.get("top_k", 0),
                seed=body["seed"],
                output_kind=RequestOutputKind.FINAL_ONLY,
                # Once, at the end: token by token is more work, and drops <think> where that is a special token.
                detokenize=False,
            )
            prompt = {"prompt_token_ids": ids}
            # A client that goes away cancels this, and the generator then ends the request in the engine.
            async for output in self._llm.generate(prompt, sampling, str(next(self._number))):
                final = output
        except EngineDeadError:
            os._exit(1)  # the supervisor ends what is left
        except ValueError as error:  # vLLM's, of requests that it cannot serve
            return web.json_response({"error": {"message": str(error)}}, status=400)
        answer = final.outputs[0]
        # The end token is no text even where the tokenizer does not hold it as special.
        written = answer.token_ids[:-1] if answer.finish_reason == "stop" else answer.token_ids
        text = self._tokenizer.decode([number for number in written if number not in self._hidden])
        choice = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": answer.finish_reason,
            "token_ids": list(answer.token_ids),
        }
        usage = {"prompt_tokens": len(final.prompt_token_ids), "completion_tokens": len(answer.token_ids)}
        return web.Response(
            body=json.dumps({"choices": [choice], "usage": usage}), content_type="application/json"
        )

    def _ids(self, body: dict[str, Any]) -> list[int]:
        given = body.get("chat_template_kwargs", {})
        ids: list[int] = self._tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, tokenize=True, return_dict=False, **given
        )
        return ids


async def serve(arguments: list[str]) -> None:
    from vllm import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--keep", nargs=2, default=[])
    options = parser.parse_args(arguments)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(options))
    gc.freeze()  # a model's worth of Python objects need not be gone through again and again
    try:
        runner = web.AppRunner(
            Front(llm, options.keep).application(), handler_cancellation=True, access_log=None
        )
        await runner.setup()
        await web.TCPSite(runner, options.host, options.port, backlog=4096).start()
        await stopped.wait()
    finally:
        llm.shutdown()


if __name__ == "__main__":
    import uvloop  # vLLM needs it too

    uvloop.run(serve(sys.argv[1:]))
