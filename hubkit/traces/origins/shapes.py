"""Reads rows of published traces, in the shapes in which people publish them, in one form.

    {"problem": "1 + 1?", "answer": "2", "generations": ["<think>a</think>2", "<think>b</think>3"]}
    {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>a</think>2"}]}
    {"question": "1 + 1?", "reasoning_content": "a", "content": "2"}
    {"instruction": "Add them.", "input": "1, 1", "output": "<think>a</think>2"}    the problem "Add them.\\n\\n1, 1"
    "<|start|>user<|message|>1 + 1?<|end|><|start|>assistant<|channel|>analysis<|message|>a<|end|>…"
        -> Found("1 + 1?", "2", Thought("a", "2", "closed"), …)

Columns are named by the recipe or recognised by the names in ROLES, also inside structs. A row with several responses
gives several traces. Missing parts are "" or None; the step decides whether the rest is enough.

A problem may stand in several columns (problems.parts). The system message is a field of Found, since one that all rows
have is no part of any problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hubkit.engines.replies import CLEAN, CUT
from hubkit.errors import InputError
from hubkit.problems.cells import Cell, look_up
from hubkit.problems.parts import PARTS, last_name, parts_beside, put_together, text_of
from hubkit.traces.thinking import TURN, Thought, opened_at, own_turn, role_of, split, trimmed
from hubkit.verifiers.extract import boxed

__all__ = ["HISTORY", "ROLES", "Found", "are_claims", "find", "recognise"]

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "chat": ("messages", "conversations", "conversation", "chat"),
    "problem": (
        "problem", "question", "prompt", "problem_text", "original_question", "instruction", "query", "input",
        "user_message",
    ),
    "answer": (
        "expected_answer", "final_answer", "ground_truth", "gold_answer", "gold", "gt", "answer", "target",
        "ground_truth_answer", "ground_truth_solution",
    ),
    "reasoning": (
        "reasoning_content", "reasoning", "reasoning_trace", "thinking", "thought", "thinking_trajectory",
        "thinking_trajectories", "deepseek_thinking_trajectory", "deepseek_reasoning", "chain_of_thought", "cot",
    ),
    "solution": (
        "content", "response", "answer_text", "final_response", "attempt", "deepseek_attempt", "deepseek_solution",
        "solution",
    ),
    "text": (
        "text", "generation", "generations", "full_response", "r1_generation", "generated_solution", "generated_cot",
        "completion", "completions", "output", "outputs", "responses", "response", "code",
    ),
    "finish_reason": ("finish_reason", "finish_reasons", "stop_reason"),
    "correct": (
        "is_correct", "correct", "correctness", "correctness_math_verify", "math_verify", "is_right",
    ),
    **PARTS,
}  # fmt: skip
"""Role of a column -> names by which it is recognised, the most likely first. A score or a label, which may be a
quality or a class, is a verdict only where the recipe says so."""

HISTORY: Final = "history"
"""Column of earlier turns, in Alpaca's form as LLaMA-Factory has it."""
_PICTURE: Final = re.compile(
    r"<(?:\|)?(?:image|video|audio)(?:[_ ]?\d+)?(?:\|)?>|<\|(?:image_pad|vision_start)\|>"
)
"""Where a picture stood."""
_MESSAGE: Final = re.compile(r"\A<\|message\|>")


@dataclass(frozen=True)
class Found:
    """One trace of a row."""

    problem: str
    answer: str
    """"" if the row has no key."""
    thought: Thought
    finish_reason: str
    """As the source says; "stop" where it says nothing."""
    claimed: bool | None
    """Whether the source calls it correct; None if it does not say."""
    system: str = ""
    """The system message."""
    ran_on: bool = False
    """Whether the model went on after the end of its turn; what it wrote then is left out."""


def recognise(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns role -> column of a row, with dots into structs. Roles without a column are left out."""
    names = list(_names(row))
    found: dict[str, str] = {}
    for role, known in ROLES.items():
        column = next((n for k in known for n in names if last_name(n) == k), "")
        if column and column not in found.values() and role not in PARTS:
            found[role] = column
    found |= parts_beside(row, found.get("problem", ""), found.values())
    if "chat" in found and _chat(look_up(row, found["chat"])) is None:
        del found["chat"]
    if "reasoning" in found:
        text = found.pop("text", "")  # what is split already is not split again
        if text and isinstance(look_up(row, text), list):
            del found["reasoning"]  # several responses, of which each is whole
            found["text"] = text
        elif text and "solution" not in found:
            found["solution"] = text  # what follows the reasoning, or the whole where that column is empty
    elif "text" not in found and "solution" in found:
        found["text"] = found["solution"]  # the whole response, under the name of its end
    if "reasoning" not in found:
        found.pop("solution", None)
    return found


def _names(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    yield from (f"{prefix}{name}" for name in row)
    for name, value in row.items():
        if isinstance(value, Mapping) and depth < 2 and name.lower() not in ROLES["options"]:
            yield from _names(value, f"{prefix}{name}.", depth + 1)


def _chat(value: Any) -> list[Mapping[str, Any]] | None:
    """Messages, which may be stored as JSON text. Returns None for all else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    whole = isinstance(value, list) and all(
        isinstance(m, Mapping) and ({"role", "from"} & m.keys()) for m in value
    )
    return value if whole else None


def find(row: Mapping[str, Any], where: str, columns: Mapping[str, str]) -> list[Found]:
    """Returns the traces of a row. Raises InputError, naming row and column, for a value of no known shape."""
    columns = parts_beside(row, columns.get("problem", ""), columns.values()) | dict(columns)

    def cell(role: str) -> Cell | None:
        column = columns.get(role)
        if not column:
            return None
        try:
            return Cell(where, column, look_up(row, column))
        except KeyError:
            if role in ("answer", "finish_reason", "correct", *PARTS):
                return None  # rows of JSON leave out what they do not have
            known = ", ".join(map(str, row)) or "none"
            raise InputError(f"{where} has no column {column!r}", f"its columns are {known}") from None

    asked = cell("problem")
    problem, answer = asked.problem() if asked is not None else "", _key(cell("answer"))
    system = "\n\n".join(filter(None, (asked.system() if asked else "", text_of(cell("system")))))
    if problem.strip():
        parts = {part: held for part in PARTS if (held := cell(part)) is not None}
        problem = put_together(problem.strip(), columns["problem"], parts)
    if row.get(HISTORY):
        raise InputError(
            f"{where}: a history of earlier turns is not one prompt", "leave such rows out: where"
        )
    responses: list[tuple[str, str]] = []  # (text, reasoning apart)
    if (chat := cell("chat")) is not None and chat.value:
        said, system = chat.problem(), chat.system() or system
        problem, responses = problem or said, [_of_chat(chat)]
    elif (reasoning := cell("reasoning")) is not None:
        responses = [(_text(cell("solution")), _text(reasoning))]
    elif (whole := cell("text")) is not None and len(_chat(whole.value) or ()) == 1:
        responses = [_of_chat(whole)]
    elif whole is not None:
        values = whole.value if isinstance(whole.value, list) else [whole.value]
        responses = [(_text(Cell(where, whole.column, value)), "") for value in values]
    if len(responses) == 1 and (turns := _conversation(responses[0][0], problem.strip())):
        if turns.users > 1:
            raise InputError(
                f"{where}: a conversation with {turns.users} turns of the user is not one prompt",
                "a problem is one user message; put what it needs into that one",
            )
        problem, system, responses = (
            problem or turns.asked,
            turns.system or system,
            [(turns.said, responses[0][1])],
        )
    if not responses:
        raise InputError(
            f"{where}: no response was recognised among {', '.join(map(str, row))}",
            "name its columns: columns: {problem: …, text: …} or {reasoning: …, solution: …}",
        )
    if _PICTURE.search(problem):
        raise InputError(f"{where}: the problem has a picture in it", "problems are text alone")
    finishes, claims = _each(cell("finish_reason"), len(responses)), _each(cell("correct"), len(responses))
    found = []
    for (text, apart), finish, claim in zip(responses, finishes, claims, strict=True):
        said = _without_prompt(text, problem)
        thought, ran_on = split(said, apart or None), own_turn(said) != said
        found.append(
            Found(problem.strip(), answer.strip(), thought, _ended(finish), _as_bool(claim), system, ran_on)
        )
    return found


def _text(cell: Cell | None) -> str:
    return "" if cell is None else cell.answer()


def _key(cell: Cell | None) -> str:
    """The known answer; of a whole solution its box."""
    text = _text(cell)
    return (boxed(text) or text) if "\n" in text or len(text) > 200 else text


def _of_chat(cell: Cell) -> tuple[str, str]:
    """(response, reasoning apart) of a chat that ends with the assistant's message."""
    last = (_chat(cell.value) or [{}])[-1]
    return cell.answer(), next((last[k] for k in ROLES["reasoning"] if isinstance(last.get(k), str)), "")


class _Turns(NamedTuple):
    """A conversation that was one text."""

    system: str
    asked: str
    """The user's message with the problem."""
    said: str
    """What the assistant wrote after it, and what follows that."""
    users: int
    """Number of the user's messages up to it."""


def _conversation(text: str, problem: str) -> _Turns | None:
    """Returns the turns in a text up to the answer to the problem; without a problem, to the last message of the user.

    Returns None if it is no conversation about the problem.
    """
    turns = [(role_of(turn), turn.start(), turn.end()) for turn in TURN.finditer(text)]

    def message(turn: int) -> str:
        end = turns[turn + 1][1] if turn + 1 < len(turns) else len(text)
        return trimmed(_MESSAGE.sub("", text[turns[turn][2] : end]))

    users = [i for i, (role, _, _) in enumerate(turns) if role in ("user", "inst")]
    # Turns of the user after the one that has the problem are the model's own.
    asked = next((i for i in (users if problem else users[-1:]) if problem in message(i)), len(turns))
    if asked + 1 >= len(turns) and (problem or len(users) < 2):
        return None
    # Harmony's system message is the template's; what people write there is the developer's.
    harmony = text.startswith("<|start|>", turns[0][1])
    system = [i for i in range(asked) if turns[i][0] == ("developer" if harmony else "system")]
    _, start, after = turns[asked + 1] if asked + 1 < len(turns) else ("", len(text), len(text))
    # Harmony's channels begin with the very token that begins the turn.
    said = text[start if text.startswith("<|start|>", start) else after :]
    return _Turns("\n\n".join(map(message, system)), message(asked), said, users.index(asked) + 1)


def _without_prompt(text: str, problem: str) -> str:
    """Returns a response without the prompt, which some files have before it in the same text."""
    if not problem.strip() or problem.strip() not in text:
        return text
    start = opened_at(text)
    return text[start:] if start and problem.strip() in text[:start] else text


def _each(cell: Cell | None, number: int) -> list[Any]:
    value = cell.value if cell is not None else None
    if isinstance(value, list) and len(value) == number:
        return value
    return [value if not isinstance(value, list) else None] * number


def _ended(finish: Any) -> str:
    """The finish reason by the names that engines give it, all else as it is; "stop" where nothing is said."""
    word = str(finish or "stop")
    return "stop" if word.lower() in CLEAN else "length" if word.lower() in CUT else word


def are_claims(value: Any) -> bool:
    """Whether a value of the column `correct` is one or several verdicts, or nothing. The number or letter of the right
    option is none."""
    values = value if isinstance(value, list) else [value]
    return all(one in (None, "") or _as_bool(one) is not None for one in values)


def _as_bool(value: Any) -> bool | None:
    """A verdict: true, false, 1 or 0, also as text. Returns None for all else, such as a score of 0.7."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    text = value.strip().lower() if isinstance(value, str) else ""
    return {
        "true": True,
        "1": True,
        "correct": True,
        "yes": True,
        "false": False,
        "0": False,
        "wrong": False,
    }.get(text, False if text in ("incorrect", "no") else None)
