from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from openai_server import OpenAIServer

from hubkit.engines import Engine, Request, Response, open_engine, openai
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError
from hubkit.section import Sampling

KEY = "sk-secret-0123456789"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def ask(text: str, seed: int = 0) -> Request:
    return Request(
        f"key of {text}", [{"role": "user", "content": text}], Sampling(max_tokens=9, top_k=3), seed
    )


def engine(server: OpenAIServer, **runtime: Any) -> Engine:
    options = {"engine": "openai", "endpoint": server.endpoint, "window": 4, "timeout_s": 20} | runtime
    return open_engine("org/model", EngineRuntime.model_validate(options))


async def collect(engine: Engine, requests: Iterable[Request]) -> list[Response]:
    return [response async for response in engine.stream(requests)]


def answers(server: OpenAIServer, requests: Iterable[Request], **runtime: Any) -> dict[str, Response]:
    with engine(server, **runtime) as opened:
        found = asyncio.run(collect(opened, requests))
    assert len({response.key for response in found}) == len(found)
    return {response.key: response for response in found}


def test_a_request_says_what_to_do_and_the_response_what_was_done(server: OpenAIServer) -> None:
    [response] = answers(server, [ask("hello", seed=2**63 - 1)]).values()
    assert response.text == "<think>\nabout hello\n</think>\n\nsaid hello"
    assert (response.finish_reason, response.prompt_tokens, response.completion_tokens) == ("stop", 5, 7)
    assert response.latency_s > 0 and response.reasoning is None
    assert server.requests == [
        {
            "model": "org/model",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 9,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 3,
            "seed": 2**31 - 1,
        }
    ]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_separate_field_of_reasoning_is_read(server: OpenAIServer, field: str) -> None:
    server.answers["x"] = {"content": "so 5", field: "2 + 3"}
    server.answers["cut"] = {"content": None, field: "2 +", "finish_reason": "length"}
    found = answers(server, [ask("x"), ask("cut")])
    assert (found["key of x"].text, found["key of x"].reasoning) == ("so 5", "2 + 3")
    cut = found["key of cut"]
    assert (cut.text, cut.reasoning, cut.finish_reason) == ("", "2 +", "length")


def test_half_a_character_does_not_reach_the_journal(server: OpenAIServer) -> None:
    server.answers["x"] = {"content": "a\ud800b"}
    assert answers(server, [ask("x")])["key of x"].text == "a?b"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("content_filter", "content_filter"),
        ("repetition", "repetition"),
        ("tool_calls", "tool_calls"),
        ("stop_sequence", "stop_sequence"),
        (None, "unknown"),
        ("", "unknown"),
        ("<b>\n" * 99, "_b" * 20),
        ("eos_token", "stop"),
        ("STOP", "stop"),
        ("model_length", "length"),
    ],
)
def test_a_finish_reason_is_kept_and_only_the_models_own_end_is_clean(
    server: OpenAIServer, given: str | None, kept: str
) -> None:
    server.answers["x"] = {"content": "half", "finish_reason": given}
    found = answers(server, [ask("x")])["key of x"]
    assert (found.finish_reason, found.text, found.error) == (kept, "half", "")
    assert bool(found.unfinished) == (kept != "stop") and len(server.requests) == 1


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "2 +"}, {"type": "text", "text": " 3"}]}


@pytest.mark.parametrize(
    "message",
    [
        {"content": [THINKING, {"type": "text", "text": "so 5"}]},
        {"content": [THINKING, {"type": "text", "text": "so "}, {"type": "text", "text": "5"}]},
        {
            "content": [
                {"type": "thinking", "thinking": "2 + 3", "signature": "x"},
                {"type": "text", "text": "so 5"},
            ]
        },
        {"content": [[THINKING], [{"type": "text", "text": "so 5"}]]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2 + 3"}]}, "so 5"]},
        {"content": {"type": "text", "text": "so 5"}, "thinking": "2 + 3"},
        {"content": [{"type": "text", "text": "so 5"}, {"type": "image_url"}], "reasoning_content": "2 + 3"},
        {"content": [THINKING, {"type": "text", "text": "so 5"}], "reasoning": "2 + 3"},
        {"content": "so 5", "reasoning": [{"type": "text", "text": "2 + 3"}]},
        {
            "content": "so 5",
            "reasoning": None,
            "reasoning_details": [{"type": "reasoning.text", "text": "2 + 3"}],
        },
        {"content": "so 5", "thinking_blocks": [{"type": "thinking", "thinking": "2 + 3"}]},
        {"content": "so 5", "reasoning": "", "reasoning_content": "2 + 3"},
    ],
)
def test_content_and_reasoning_as_typed_chunks(server: OpenAIServer, message: dict[str, Any]) -> None:
    server.answers["x"] = message
    found = answers(server, [ask("x")])["key of x"]
    assert (found.text, found.reasoning, found.finish_reason) == ("so 5", "2 + 3", "stop")


def test_a_refusal_is_no_answer(server: OpenAIServer) -> None:
    server.answers["x"] = {"content": None, "refusal": "I cannot."}
    found = answers(server, [ask("x")])["key of x"]
    assert (found.text, found.finish_reason, found.error) == ("I cannot.", "refusal", "")


EVENTS = (
    ': hello\n\ndata: {"choices": [{"delta": {"role": "assistant", "reasoning": "2 +"}}]}\n\n'
    'data: {"choices": [{"delta": {"reasoning": " 3", "content": null}}]}\n\n'
    'data: {"choices": [{"delta": {"content": "so "}}]}\n\ndata: {"choices": [{"delta": {"content": "5"}, '
    '"finish_reason": "stop"}]}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}\n\n'
    "data: [DONE]\n\n"
)


def test_a_stream_that_nobody_asked_for_is_put_together(server: OpenAIServer) -> None:
    server.answers["x"] = {"body": EVENTS}
    server.answers["cut"] = {"body": EVENTS[: EVENTS.index('data: {"choices": [{"delta": {"content": "5"')]}
    found = answers(server, [ask("x"), ask("cut")], tries=2)
    whole, cut = found["key of x"], found["key of cut"]
    assert (whole.text, whole.reasoning, whole.finish_reason) == ("so 5", "2 + 3", "stop")
    assert (whole.prompt_tokens, whole.completion_tokens) == (3, 9)
    assert cut.finish_reason == "error" and "an event stream without an end" in cut.error


def test_an_error_that_says_200_is_treated_as_what_it_is(server: OpenAIServer) -> None:
    server.answers["busy"] = {"body": '{"error": {"code": 502, "message": "upstream"}}'}
    server.answers["bad"] = {"body": '{"error": {"code": 400, "message": "too long"}}'}
    server.answers["odd"] = {"body": '{"error": "try later"}'}
    server.answers["event"] = {"body": 'data: {"error": {"code": "400", "message": "too long"}}'}
    found = answers(server, [ask(text) for text in ("busy", "bad", "odd", "event", "a")], tries=2)
    errors = {key[7:]: response.error for key, response in found.items()}
    assert "HTTP 502" in errors["busy"] and "HTTP 400" in errors["bad"] and "HTTP 400" in errors["event"]
    assert "an error instead of an answer" in errors["odd"] and errors["a"] == ""
    asked = [body["messages"][0]["content"] for body in server.requests]
    assert [asked.count(text) for text in ("busy", "bad", "odd", "event", "a")] == [2, 1, 2, 1, 1]


REFUSALS = {
    "OpenAI": {
        "error": {
            "message": "Unsupported parameter: '{}' is not supported with this model.",
            "type": "invalid_request_error",
            "param": "{}",
            "code": "unsupported_parameter",
        }
    },
    "Azure": {"error": {"message": "Unrecognized request argument supplied: {}", "param": None}},
    "Groq": {"error": {"message": "property '{}' is unsupported"}},
    "Google": [
        {
            "error": {
                "code": 400,
                "message": 'Invalid JSON payload received. Unknown name "{}": Cannot find field.',
            }
        }
    ],
    "Mistral": {
        "detail": [
            {"type": "extra_forbidden", "loc": ["body", "{}"], "msg": "Extra inputs are not permitted"}
        ]
    },
    "NIM": {"detail": "body -> {}\n  Extra inputs are not permitted (type=extra_forbidden)"},
    "Fireworks": {"error": {"message": "Extra inputs are not permitted, field: '{}'"}},
}


@pytest.mark.parametrize("host", REFUSALS)
@pytest.mark.parametrize("name", ["max_tokens", "seed", "top_k", "temperature", "top_p"])
def test_what_a_host_does_not_take_is_found_out_once(
    server: OpenAIServer, host: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuses[name] = json.loads(json.dumps(REFUSALS[host]).replace("{}", name))
    with engine(server, window=2, tries=1) as opened:
        found = asyncio.run(collect(opened, (ask(str(i)) for i in range(12))))
        assert {response.finish_reason for response in found} == {"stop"}
        note = (
            "max_tokens is sent as max_completion_tokens" if name == "max_tokens" else f"{name} is not sent"
        )
        assert list(opened.notes) == [note] and capsys.readouterr().err.count(note) == 1
    assert len(server.requests) <= 12 + 2, "those of the first window alone are asked twice"
    assert {body.get("max_tokens", body.get("max_completion_tokens")) for body in server.requests} == {9}


def test_a_host_that_takes_almost_nothing(server: OpenAIServer) -> None:
    for name in ("max_tokens", "seed", "top_k", "temperature", "top_p"):
        server.refuses[name] = json.loads(json.dumps(REFUSALS["OpenAI"]).replace("{}", name))
    found = answers(server, (ask(str(i)) for i in range(9)))
    assert {response.finish_reason for response in found.values()} == {"stop"}
    assert set(server.requests[-1]) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 40000. This model supports at most 16384 completion tokens",
        "'max_tokens' must be at least 1",
        "unsupported content: the temperature and the seed of a star",
    ],
)
def test_other_refusals_change_nothing(server: OpenAIServer, message: str) -> None:
    server.refuses["max_tokens"] = {"error": {"message": message, "param": None}}
    found = answers(server, [ask("a")])["key of a"]
    assert found.finish_reason == "error" and len(server.requests) == 1


def test_a_reply_without_usage_counts_as_the_most_it_may_have_cost(server: OpenAIServer) -> None:
    server.answers["x"] = {"usage": None}
    server.answers["y"] = {"usage": {"input_tokens": 4, "output_tokens": 2}}
    found = answers(server, [ask("x"), ask("y")])
    assert found["key of x"].uncounted_tokens == 1 + 64 + 9
    y = found["key of y"]
    assert (y.prompt_tokens, y.completion_tokens, y.uncounted_tokens) == (4, 2, 0)


@pytest.mark.parametrize(
    "fault",
    ["429", "408", "500", "503", "520", "524", "527", "529", "garbage", "shape", "half", "drop", "empty"],
)
def test_what_may_pass_is_tried_again(server: OpenAIServer, fault: str) -> None:
    server.faults["b"] = [fault]
    found = answers(server, [ask(text) for text in "abc"])
    assert {response.finish_reason for response in found.values()} == {"stop"}
    assert [body["messages"][0]["content"] for body in server.requests].count("b") == 2


def test_every_request_is_answered_once_through_a_storm_of_faults(server: OpenAIServer) -> None:
    names = ["429", "500", "garbage", "half", "drop", "shape"]
    for i in range(0, 60, 2):
        server.faults[str(i)] = [names[i // 2 % 6]]
    found = answers(server, (ask(str(i)) for i in range(60)), window=16)
    assert {r.text for r in found.values()} == {
        f"<think>\nabout {i}\n</think>\n\nsaid {i}" for i in range(60)
    }
    assert server.most_at_once <= 16


@pytest.mark.parametrize("date", [False, True])
def test_the_server_says_how_long_to_wait(server: OpenAIServer, date: bool) -> None:
    server.retry_after = formatdate(time.time() + 3, usegmt=True) if date else "2"
    server.faults["a"] = ["429"]
    started = time.monotonic()
    answers(server, [ask("a")])
    assert time.monotonic() - started >= 1.9


def test_other_refusals_come_back_as_errors_at_once(server: OpenAIServer) -> None:
    server.faults["b"] = ["400"]
    found = answers(server, [ask(text) for text in "abc"])
    assert found["key of b"].finish_reason == "error" and "HTTP 400" in found["key of b"].error
    assert found["key of a"].finish_reason == found["key of c"].finish_reason == "stop"
    assert len(server.requests) == 3


def test_a_deadline_holds_over_all_tries(server: OpenAIServer) -> None:
    server.faults["b"] = ["hang"] * 9
    server.faults["c"] = ["500"] * 99
    started = time.monotonic()
    found = answers(server, [ask(text) for text in "abcd"], timeout_s=2)
    assert time.monotonic() - started < 6
    assert "no answer within 2 s" in found["key of b"].error
    assert "HTTP 500" in found["key of c"].error
    assert found["key of a"].finish_reason == found["key of d"].finish_reason == "stop"


@pytest.mark.parametrize("ours", [True, False])
def test_what_waits_in_the_queue_of_our_own_server_is_not_over_while_others_are_answered(
    ours: bool, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU with room for ten of the 512 requests that vLLM is given answers the last of them after hours."""
    monkeypatch.setattr(openai, "ANSWER_S", 0.0)
    monkeypatch.setattr(openai, "SLOWEST_RATE", 18.0)  # half a second for nine tokens
    server.one_by_one = 0.2
    runtime = EngineRuntime(engine="openai", endpoint=server.endpoint, window=8, tries=1)

    def found(texts: str) -> dict[str, str]:
        opened = openai.OpenAIEngine(runtime, "model", ours=ours)
        responses = asyncio.run(collect(opened, [ask(text) for text in texts]))
        return {response.key[-1]: response.error or response.finish_reason for response in responses}

    first = found("abcdefgh")
    assert list(first.values()).count("stop") == (8 if ours else 2)
    server.one_by_one, server.faults["b"] = 0.0, ["hang"]
    started = time.monotonic()
    assert found("ab") == {"a": "stop", "b": "no answer within 0.5 s"}, "one that answers no more is noticed"
    assert time.monotonic() - started < 5


def test_a_long_answer_holds_nothing_back_and_requests_are_drawn_lazily(server: OpenAIServer) -> None:
    server.faults["0"] = ["hang"]
    drawn = 0

    def requests() -> Iterator[Request]:
        nonlocal drawn
        for drawn in range(1000):
            yield ask(str(drawn))

    async def some() -> int:
        with engine(server, window=4, timeout_s=60) as opened:
            stream = opened.stream(requests())
            for _ in range(50):
                assert (await anext(stream)).key != "key of 0"
            return drawn

    # 50 were read; 4 may be under way, 4 answered and not read, and one is drawn by a worker at a time.
    assert asyncio.run(some()) < 50 + 4 + 4 + 4
    assert server.most_at_once <= 4


@pytest.mark.parametrize("fault", ["401", "500"])
def test_a_server_that_answers_nothing_is_given_up(
    server: OpenAIServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubkit.engines.openai.BACKOFF_S", 0.01)
    server.always = fault
    seen: list[Response] = []

    async def read() -> None:
        with engine(server, window=10) as opened:
            async for response in opened.stream(ask(str(i)) for i in range(1000)):
                seen.append(response)

    with pytest.raises(EngineError, match=rf"20 requests in a row failed: HTTP {fault}"):
        asyncio.run(read())
    assert len(seen) == 20 and {response.finish_reason for response in seen} == {"error"}
    assert len(server.requests) <= 35 * 5


def test_a_server_that_dies_on_the_way_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubkit.engines.openai.BACKOFF_S", 0.01)

    async def read(server: OpenAIServer) -> None:
        number = 0
        with engine(server, window=10, timeout_s=1) as opened:
            async for _ in opened.stream(ask(str(i)) for i in range(100_000)):
                number += 1
                if number == 30:
                    await asyncio.to_thread(server.__exit__, None, None, None)

    server = OpenAIServer(delay_s=0.005).__enter__()
    with pytest.raises(EngineError, match=r"in a row failed: (cannot connect to .*refused|no answer|Server)"):
        asyncio.run(read(server))


def test_refusals_after_an_answer_do_not_end_the_stream(server: OpenAIServer) -> None:
    for i in range(1, 60):
        server.faults[str(i)] = ["400"]
    found = answers(server, (ask(str(i)) for i in range(61)), window=1)
    assert [r.finish_reason for r in found.values()].count("error") == 59


def test_a_server_that_is_not_there_is_an_error_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runtime = EngineRuntime(engine="openai", endpoint=f"http://user:{KEY}@127.0.0.1:{port}/v1?key={KEY}")
    started = time.monotonic()
    with pytest.raises(EngineError, match="cannot connect") as caught, open_engine("m", runtime) as opened:
        asyncio.run(collect(opened, [ask("a")]))
    assert time.monotonic() - started < 5
    assert KEY not in str(caught.value) and "start the server" in caught.value.remedy


@pytest.mark.parametrize(
    "endpoint", ["", "localhost:8000/v1", "file:///etc/passwd", [], ["http://a/v1", "b"]]
)
def test_an_address_that_is_none_is_refused(endpoint: str | list[str]) -> None:
    with pytest.raises(EngineError, match="no address"):
        open_engine("m", EngineRuntime(engine="openai", endpoint=endpoint)).__enter__()


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY + "-wrong")
    with OpenAIServer(key=KEY) as server:
        found = answers(server, [ask("a")], api_key_env="TEST_KEY")["key of a"]
        assert found.finish_reason == "error" and "401" in found.error and KEY not in found.error
        monkeypatch.setenv("TEST_KEY", KEY + "\n")
        assert answers(server, [ask("a")], api_key_env="TEST_KEY")["key of a"].finish_reason == "stop"
        monkeypatch.setenv("TEST_KEY", f"{KEY}\nX-Evil: 1")
        with pytest.raises(EngineError, match="TEST_KEY") as caught:
            answers(server, [ask("a")], api_key_env="TEST_KEY")
        assert KEY not in str(caught.value)


def test_an_error_of_the_requests_reaches_the_reader(server: OpenAIServer) -> None:
    def requests() -> Iterator[Request]:
        yield ask("a")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        answers(server, requests())


def test_an_adapter_is_not_silently_left_out(server: OpenAIServer, tmp_path: Any) -> None:
    with pytest.raises(EngineError, match="adapter"):
        open_engine("m", EngineRuntime(engine="openai", endpoint=server.endpoint), adapter=tmp_path)


def test_a_second_reply_is_nobodys_answer(server: OpenAIServer) -> None:
    for i in range(0, 40, 3):
        server.faults[str(i)] = ["twice"]
    found = answers(server, (ask(str(i)) for i in range(40)), window=2)
    for i in range(40):
        assert found[f"key of {i}"].text.endswith(f"said {i}"), found[f"key of {i}"]


def test_a_key_is_not_sent_where_a_server_points(server: OpenAIServer) -> None:
    server.faults["a"] = ["redirect"]
    found = answers(server, [ask("a")])["key of a"]
    assert found.finish_reason == "error" and "HTTP 307" in found.error


def test_a_poison_request_is_set_aside_after_its_tries(server: OpenAIServer) -> None:
    server.faults["b"] = ["500"] * 99
    found = answers(server, [ask(text) for text in "abcd"], tries=3)
    assert [body["messages"][0]["content"] for body in server.requests].count("b") == 3
    assert "HTTP 500" in found["key of b"].error
    assert [r.finish_reason for r in found.values()].count("stop") == 3


def test_a_server_that_fails_for_most_is_given_up(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10_000):
        if i % 5:
            server.faults[str(i)] = ["500"]
    with pytest.raises(EngineError, match="101 of 200 requests failed"):
        answers(server, (ask(str(i)) for i in range(10_000)), tries=1, window=1)
    assert len(server.requests) < 150


def test_servers_share_the_work_and_take_over_from_one_that_is_not_there() -> None:
    with OpenAIServer(delay_s=0.01) as one, OpenAIServer(delay_s=0.01) as other, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoints = [one.endpoint, f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", other.endpoint]
        found = answers(one, (ask(str(i)) for i in range(200)), endpoint=endpoints)
        assert {response.finish_reason for response in found.values()} == {"stop"} and len(found) == 200
        assert min(len(one.requests), len(other.requests)) > 60


def test_a_server_that_fails_at_once_does_not_draw_the_work() -> None:
    with OpenAIServer(delay_s=0.01) as sound, OpenAIServer() as broken:
        broken.always = "500"
        found = answers(sound, (ask(str(i)) for i in range(200)), endpoint=[broken.endpoint, sound.endpoint])
        assert {response.finish_reason for response in found.values()} == {"stop"} and len(found) == 200
        assert len(broken.requests) < 20


def test_a_server_that_comes_back_is_asked_again(server: OpenAIServer) -> None:
    async def read() -> int:
        number = 0
        with engine(server, window=4) as opened:
            async for response in opened.stream(ask(str(i)) for i in range(100)):
                assert response.finish_reason == "stop"
                number += 1
                if number == 30:
                    await asyncio.to_thread(server.restart)
        return number

    assert asyncio.run(read()) == 100


def test_a_pause_longer_than_a_request_may_take_ends_the_stream(server: OpenAIServer) -> None:
    server.retry_after = "3600"
    server.faults["b"] = ["429"]
    with pytest.raises(EngineError, match=r"asks to wait for 3600 s: HTTP 429.*run again then"):
        answers(server, [ask(text) for text in "abc"])


def test_too_many_requests_are_waited_out_however_often_they_come(server: OpenAIServer) -> None:
    server.retry_after = "0.02"
    server.faults = {str(i): ["429"] * 12 for i in range(8)}
    found = answers(server, (ask(str(i)) for i in range(8)), tries=2, window=8)
    assert {response.finish_reason for response in found.values()} == {"stop"}
    assert len(server.requests) == 8 * 13


def test_a_user_in_the_address_takes_the_keys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with OpenAIServer(key="none of these") as server:
        address = server.endpoint.replace("http://", "http://someone:password-1@")
        found = answers(server, [ask("a")], endpoint=address, api_key_env="TEST_KEY")["key of a"]
        assert "401" in found.error and "Basic" in found.error
