from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubkit.engines.marks import PAIRS, TAG, opened_by
from hubkit.records import messages_of
from hubkit.traces.thinking import ENDS, STARTS, Thought, own_turn, split

CASES = {
    "tags": ("<think>\n2 + 3\n</think>\n\nIt is 5.", None, ("2 + 3", "It is 5.", "closed")),
    "opened by the template": ("2 + 3\n</think>\nIt is 5.", None, ("2 + 3", "It is 5.", "closed")),
    "cut off": ("<think>\n2 + 3 is", None, ("2 + 3 is", "", "unclosed")),
    "cut off at once": ("<think>", None, ("", "", "unclosed")),
    "cut off after the span": ("<think>2 + 3</think>", None, ("2 + 3", "", "closed")),
    "none": ("It is 5.", None, ("", "It is 5.", "none")),
    "nothing": ("", None, ("", "", "none")),
    "thinking turned off": ("<think>\n\n</think>\n\nIt is 5.", None, ("", "It is 5.", "none")),
    "draft between spans": ("<think>a</think>b<think>c</think>d", None, ("a\nb\nc", "d", "closed")),
    "draft, closed again": (
        "<think>a</think>\nDraft: 4.\n</think>\n5",
        None,
        ("a\nDraft: 4.", "5", "closed"),
    ),
    "closed twice": ("<think>a</think></think>5", None, ("a", "5", "closed")),
    "opened twice": ("<think><think>a</think>5", None, ("a", "5", "closed")),
    "opened by the template and the model": ("<think>\n<think>\na\n</think>5", None, ("a", "5", "closed")),
    "opened again, and not closed": (
        "<think>a</think>4\n<think>\nWait",
        None,
        ("a\n4\nWait", "", "unclosed"),
    ),
    "opened after a greeting": ("Sure!\n<think>\na</think>5", None, ("Sure!\na", "5", "closed")),
    "cut off after a greeting": ("Sure!\n<think>\na", None, ("Sure!\na", "", "unclosed")),
    "an empty span, then one": ("<think></think>[THINK]a[/THINK]5", None, ("a", "5", "closed")),
    "a span of each of two kinds": (
        "<think>a</think><reasoning>b</reasoning>5",
        None,
        ("a\nb", "5", "closed"),
    ),
    "a close of another kind": ("<thinking>a</think>5", None, ("a< /think>5", "", "unclosed")),
    "tags of another kind inside": (
        "<think>Use <reasoning> and </reasoning>.</think>5",
        None,
        ("Use <reasoning> and </reasoning>.", "5", "closed"),
    ),
    "tags of another kind, cut off": (
        "<think>Use <reasoning>x</reasoning> and",
        None,
        ("Use <reasoning>x</reasoning> and", "", "unclosed"),
    ),
    "a program that writes the tags": (
        "<think>a</think>\n```html\n<think>\nb\n</think>\n```\nDone",
        None,
        ("a", "```html\n< think>\nb\n< /think>\n```\nDone", "closed"),
    ),
    "a draft with a program, closed again": (
        "<think>a</think>\n~~~\nx = 1\n~~~\nWait\n</think>\n5",
        None,
        ("a\n~~~\nx = 1\n~~~\nWait", "5", "closed"),
    ),
    "a tag that the solution speaks of": (
        "<think>a</think>Begin with <think>.",
        None,
        ("a", "Begin with < think>.", "closed"),
    ),
    "tags in quotes": (
        "<think>It says `</think>` here.</think>End with '</think>'.",
        None,
        ("It says `< /think>` here.", "End with '< /think>'.", "closed"),
    ),
    "tags in quotes alone": ("End with `</think>`.", None, ("", "End with `</think>`.", "none")),
    "tags with blanks": ("<think >a</think >5", None, ("a", "5", "closed")),
    "a token that begins the text": ("<s>[THINK]a[/THINK]5</s>", None, ("a", "5", "closed")),
    "a byte order mark": ("\ufeff<think>a</think>5", None, ("a", "5", "closed")),
    "letter case": ("<Thought>a</Thought><Output>5</Output>", None, ("a", "5", "closed")),
    "wrapped": ("<think>a</think>\n<answer>5</answer>", None, ("a", "5", "closed")),
    "wrapped, and not closed": ("<think>a</think><answer> \\boxed{5}", None, ("a", "\\boxed{5}", "closed")),
    "two answers": (
        "<think>a</think><answer>5</answer> or <answer>6</answer>",
        None,
        ("a", "<answer>5</answer> or <answer>6</answer>", "closed"),
    ),
    "special tokens around it": (
        "<|im_start|>assistant\n<think>a</think>5<|im_end|>\n<|endoftext|>",
        None,
        ("a", "5", "closed"),
    ),
    "special tokens of DeepSeek": (
        "<\uff5cAssistant\uff5c><think>a</think>5<\uff5cend\u2581of\u2581sentence\uff5c>",
        None,
        ("a", "5", "closed"),
    ),
    "all of it in the field": ("", "<think>a</think>5", ("a", "5", "closed")),
    "field with its tags": ("5", "<think>\na\n</think>", ("a", "5", "field")),
    "a tag that is spoken of": ("Write <think> first.", None, ("", "Write <think> first.", "none")),
    "field": ("It is 5.", "2 + 3", ("2 + 3", "It is 5.", "field")),
    "field, cut off": ("", "2 + 3 is", ("2 + 3 is", "", "field")),
    "field without content": ("It is 5.", " \n", ("", "It is 5.", "none")),
    "field and the same in tags": ("<think>2 + 3</think>It is 5.", "2 + 3", ("2 + 3", "It is 5.", "field")),
    "field and more in tags": ("<think>more</think>5", "2 + 3", ("2 + 3\nmore", "5", "field")),
    "field with a tag": ("5", "2 + 3</think>4", ("2 + 3\n4", "5", "field")),
    "harmony": (
        "<|channel|>analysis<|message|>2 + 3<|end|><|start|>assistant<|channel|>final<|message|>It is 5.<|return|>",
        None,
        ("2 + 3", "It is 5.", "closed"),
    ),
    "harmony, opened by the template": (
        "2 + 3<|end|><|start|>assistant<|channel|>final<|message|>5",
        None,
        ("2 + 3", "5", "closed"),
    ),
    "harmony, its channel opened by the template": (
        "analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>5",
        None,
        ("a", "5", "closed"),
    ),
    "harmony, its channel opened by the template, cut off": (
        "analysis<|message|>a",
        None,
        ("a", "", "unclosed"),
    ),
    "harmony, cut off": ("<|channel|>analysis<|message|>2 + 3 is", None, ("2 + 3 is", "", "unclosed")),
    "harmony, cut off in a header": (
        "<|channel|>analysis<|message|>2 + 3<|end|><|start|>assistant<|channel|>",
        None,
        ("2 + 3", "", "unclosed"),
    ),
    "harmony with a call": (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.x "
        "<|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
        "<|start|>assistant<|channel|>final<|message|>c",
        None,
        ("a\n{}\nb", "c", "closed"),
    ),
    "harmony without analysis": ("<|channel|>final<|message|>It is 5.", None, ("", "It is 5.", "none")),
    "harmony without its tokens": (
        "analysisWe add.assistantanalysis Again.assistantfinalIt is 5, says the assistant final.",
        None,
        ("We add.\nAgain.", "It is 5, says the assistant final.", "closed"),
    ),
    "harmony without its tokens, cut off": ("analysisWe add 2", None, ("We add 2", "", "unclosed")),
    "an analysis": ("analysis of the sum: 5", None, ("", "analysis of the sum: 5", "none")),
}


SPANS = {
    "Mistral": "[THINK]{}[/THINK]{}",
    "Seed-OSS": "<seed:think>{}</seed:think>{}",
    "MiniMax M3": "<mm:think>{}</mm:think>{}",
    "LongCat": "<longcat_think>{}</longcat_think>{}",
    "K2": "<ifm|think_fast>{}</ifm|think_fast>{}",
    "Hunyuan": "<think:6124c78e>{}</think:6124c78e>\n<answer>\n{}\n</answer>",
    "ERNIE": "<think>{}</think>\n\n<response>\n{}\n</response>",
    "EXAONE Deep": "<thought>\n{}\n</thought>\n\n{}",
    "Reka": "<reasoning>{}</reasoning>{}",
    "thinking": "<thinking>{}</thinking>{}",
    "OpenThinker": "<|begin_of_thought|>{}<|end_of_thought|><|begin_of_solution|>{}<|end_of_solution|>",
    "Command A": "<|START_THINKING|>{}<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "Command A+": "<|START_THINKING|>{}<|END_THINKING|><|START_TEXT|>{}<|END_TEXT|>",
    "Kimi-VL": "\u25c1think\u25b7{}\u25c1/think\u25b7{}",
    "Kimi K3": "<|open|>think<|sep|>{}<|close|>think<|sep|><|open|>response<|sep|>{}<|close|>response<|sep|>"
    "<|close|>message<|sep|>",
    "Gemma 4": "<|channel>thought\n{}<channel|>{}<turn|>",
    "Apertus": "<|inner_prefix|>{}<|inner_suffix|>{}",
    "Solar": "<|think:start|>{}<|think:end|>{}",
    "PLaMo": "<|plamo:begin_think:plamo|>{}<|plamo:end_think:plamo|>{}<|plamo:tag|>",
    "Inkling": "<|message_model|><|content_thinking|>{}<|end_message|><|message_model|><|content_text|>{}"
    "<|end_message|><|content_model_end_sampling|>",
    "Muse": " to=self<|message|>{}<|eom|><|start|>assistant to=user<|message|>{}<|eot|>",
    "s1": "<|im_start|>think\n{}\n<|im_start|>answer\n{}<|im_end|>",
    "openPangu": "[unused16]{}[unused17]{}",
    "MedGemma": "<unused94>thought\n{}<unused95>{}",
    "begin and end": "<|begin_of_reasoning|>{}<|end_of_reasoning|>{}",
    "start and end": "<start_of_thought>{}<end_of_thought>{}",
    "start and end behind": "<|reasoning_start|>{}<|reasoning_end|>{}",
    "with a slash": "<|thinking|>{}<|/thinking|>{}",
    "with a slash outside": "<|reasoning|>{}</|reasoning|>{}",
    "Apriel": "Here are my reasoning steps:\n{}\n[BEGIN FINAL RESPONSE]\n{}\n[END FINAL RESPONSE]",
    "Granite": "Here is my thought process: {} Here is my response: {}",
    "Granite, quantised": "Here's my thought process:\n{}\nHere's my response:\n{}",
    "gpt-oss": "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
}


@pytest.mark.parametrize("model", SPANS)
def test_marks_of_models(model: str) -> None:
    whole = SPANS[model].format("2 + 3", "It is 5.")
    assert split(whole) == ("2 + 3", "It is 5.", "closed")
    opened, _, closed = SPANS[model].partition("{}")
    assert split(f"{opened}2 + 3 is") == ("2 + 3 is", "", "unclosed")
    if "Granite" not in model:  # words that any text may hold
        assert split("2 + 3" + closed.format("It is 5.")) == ("2 + 3", "It is 5.", "closed")
    nothing = split(f"{opened}\n\n{closed.format('It is 5.')}")
    assert (nothing.reasoning, nothing.form) == ("", "none") and "It is 5." in nothing.solution
    assert opened_by(f"user: 2 + 3?\n{opened}\n") == opened.strip()


def test_words_alone_are_no_mark() -> None:
    text = "It is 5. Here is my response: yes."
    assert split(text) == ("", text, "none")


def test_a_recipe_adds_a_pair() -> None:
    assert split("{{2 + 3}}5").form == "none"
    assert split("{{2 + 3}}5", marks=("{{", "}}")) == ("2 + 3", "5", "closed")
    assert split("2 + 3}}5", marks=("{{", "}}")) == ("2 + 3", "5", "closed")
    assert split("{{2 + 3", marks=("{{", "}}")) == ("2 + 3", "", "unclosed")
    assert split("<think>2 + 3</think>5", marks=("{{", "}}")) == ("2 + 3", "5", "closed")


def test_prompts_that_open_nothing() -> None:
    for prompt in ("<think>\n\n</think>\n\n", "assistant\n", "Write <think> first.\nassistant\n", ""):
        assert opened_by(prompt) == ""


def test_many_marks_take_no_longer_than_the_text() -> None:
    started = time.process_time()
    for hostile in (
        "<think>" * 20_000,
        "a <think> " * 20_000,
        "<think></think>" * 20_000 + "x",
        "<think>a</think>" + "<answer>" * 20_000,
        "".join(f"<think:{i}></think:{i}>" for i in range(5_000)),
        "<|im_end|>" * 20_000,
        "<|im_start|>assistant\n" * 20_000,
        "x`<|im_end|><|im_start|>user\n`" * 5_000,
    ):
        split(hostile)
    assert time.process_time() - started < 30


@pytest.mark.parametrize("case", CASES)
def test_forms(case: str) -> None:
    text, field, wanted = CASES[case]
    assert split(text, field) == Thought(*wanted)


NEXT_TURNS = {
    "ChatML": ("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"),
    "Llama 3": (
        "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "DeepSeek": ("<｜User｜>", "<｜end▁of▁sentence｜>", "<｜Assistant｜>"),
    "Gemma": ("<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>model\n"),
    "Gemma 4": ("<|turn>user\n", "<turn|>\n", "<|turn>model\n"),
    "Mistral": ("[INST]", "</s>", "[/INST]"),
    "gpt-oss": ("<|start|>user<|message|>", "<|return|>", "<|start|>assistant<|channel|>final<|message|>"),
    "GLM": ("<|user|>\n", "", "<|assistant|>\n"),
    "Phi": ("<|user|>\n", "<|end|>\n", "<|assistant|>\n"),
    "Cohere": (
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "Granite": (
        "<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n", "<|start_of_role|>assistant<|end_of_role|>",
    ),
}  # fmt: skip
"""How a user's turn begins, how any turn ends, how the model's begins."""


@pytest.mark.parametrize("template", NEXT_TURNS)
def test_what_a_model_writes_after_its_turn_is_left_out(template: str) -> None:
    user, end, assistant = NEXT_TURNS[template]
    answers = {
        "<think>a</think>5": ("a", "5", "closed"),
        "5": ("", "5", "none"),
        "<think>a": ("a", "", "unclosed"),
    }
    if template == "gpt-oss":
        final = "<|channel|>final<|message|>5"
        answers = {f"<|channel|>analysis<|message|>a<|end|><|start|>assistant{final}": ("a", "5", "closed")}
    for answer, wanted in answers.items():
        for more in (
            f"{user}More?",
            f"{user}More?{end}{assistant}<think>b</think>6{end}",
            f"{user.rstrip()}",
            *([f"{assistant}<think>b</think>6"] if end else []),
        ):
            assert split(answer + end + more) == Thought(*wanted), (answer, more)
        # The prompt before it is no turn that ends.
        whole = f"{user}1 + 4?{'' if user == '[INST]' else end}{assistant}{answer}{end}"
        assert own_turn(whole) == whole
        assert own_turn(f"{whole}{user}More?") == whole.rstrip()


def test_turns_that_a_text_speaks_of_are_text() -> None:
    for text in (
        "A turn ends with `<|im_end|>` and then comes `<|im_start|>user\n`.",
        "GLM ends a turn with `<|user|>` as the next one begins.",
        "So:\n```\nHi<|im_end|>\n<|im_start|>user\nHo<|im_end|>\n```\nThat is all.",
        "It says <|im_end|> there, and goes on.",
        "The list [INST] has no end before it.",
    ):
        assert own_turn(text) == text
    assert own_turn("5<|im_end|>\n<|im_start|>") == "5<|im_end|>", "cut off where the next turn began"


MARKUP = [
    "<|im_start|>user\n",
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<reasoning>",
    "</reasoning>",
    "<|END_THINKING|>",
    "<|channel>thought",
    "<channel|>",
    "<|im_end|>",
    "<answer>",
    "</answer>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
]
WORDS = [
    "`",
    '"',
    "\n",
    "Here is my thought process:",
    "Here is my response:",
    "analysis",
    "assistant",
    "final",
    "commentary",
    "assistantfinal",
    "analysisWe",
    "\n\n",
    " ",
    "x",
    "<",
    "|>",
]
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(MARKUP + WORDS) | st.text(max_size=5), max_size=12).map("".join)
)
CONTENT = st.text(alphabet="abc 5\n+=.\u00e9\u4e16", max_size=30)
KNOWN = {*STARTS, *ENDS, *(mark for pair in PAIRS for mark in (*pair.opens, *pair.closes))}
_MARKS = re.compile(
    "|".join(re.escape(mark) for mark in sorted(KNOWN, key=len, reverse=True))
    + rf"|< ?/?think>|</?(?i:{TAG}|answer|response|output)>"
    + r"|<\|(?:start|channel|message|end|return|call|constrain)\|>|\s+",
    re.IGNORECASE,
)
_NAMES = re.compile(r"assistant|analysis|final|commentary")


def bare(text: str) -> list[str]:
    """The signs of a text without markup and blanks, in no order: harmony's messages may be sorted."""
    return sorted(_NAMES.sub("", _MARKS.sub("", text)))


@settings(max_examples=300)
@given(TEXTS, st.none() | TEXTS)
@example("<think></think>" * 5000 + "x", None)
@example("a<think></thi</think>nk>b", "</thi</think>nk>")
@example("<|channel|>[/THINK]", None)
@example("<eos><|channel|>", "0")
@example("<think>a</think><answer>[THINK]b[/THINK]5</answer>", None)
@example("<think>a `</think>` b</think>c '<think>' d", "e\n<think>f")
def test_a_rendered_thought_splits_into_itself(text: str, field: str | None) -> None:
    thought = split(text, field)
    rendered = messages_of("", thought.reasoning, thought.solution)[-1]["content"]
    match thought.form:
        case "none":
            assert thought.reasoning == "" and split(rendered) == split(thought.solution) == thought
        case "unclosed":
            assert thought.solution == "" and split(f"<think>\n{thought.reasoning}") == thought
        case "closed" | "field":
            assert thought.reasoning and split(rendered) == thought._replace(form="closed")


@settings(max_examples=300)
@given(TEXTS)
def test_no_text_of_the_turn_is_lost(text: str) -> None:
    text = own_turn(text)
    thought = split(text)
    if "<|" in text:
        # A header is dropped with its channel; where all words are markup's or in a message, none is.
        text = re.sub(r"<\|(?:start|channel)\|>[^<]*", "", text)
        found = bare(thought.reasoning + thought.solution)
        for sign in set(bare(text)):
            assert found.count(sign) >= bare(text).count(sign)
    else:
        assert bare(thought.reasoning + thought.solution) == bare(text)


@given(CONTENT.filter(str.strip), CONTENT.filter(str.strip))
def test_all_ways_of_writing_a_thought_are_read_alike(reasoning: str, solution: str) -> None:
    wanted = (reasoning.strip(), solution.strip())
    for text, field in (
        (f"<think>\n{reasoning}\n</think>\n\n{solution}", None),
        (f"{reasoning}</think>{solution}", None),
        (solution, reasoning),
        (
            f"<|channel|>analysis<|message|>{reasoning}<|end|><|start|>assistant"
            f"<|channel|>final<|message|>{solution}<|return|>",
            None,
        ),
    ):
        thought = split(text, field)
        assert (thought.reasoning, thought.solution) == wanted
        assert thought.form in ("closed", "field")


@given(CONTENT, st.integers(0, 200))
def test_cut_anywhere_reasoning_is_never_taken_for_a_solution(reasoning: str, at: int) -> None:
    for whole in (
        f"<think>\n{reasoning}\n</think>\n\nIt is 5.",
        f"<|channel|>analysis<|message|>{reasoning}!<|end|><|start|>assistant<|channel|>final<|message|>It is 5.",
    ):
        place = max(at % len(whole), len("<|channel|>analysis<|message|>"))
        assert split(whole[:place]).solution in "It is 5."
