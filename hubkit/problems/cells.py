"""One value of a row as text: numbers, chats, one-element lists, choices. Values of other shapes are refused.

    [{"role": "user", "content": "What is 2 + 2?"}]      -> "What is 2 + 2?"
    [{"from": "human", "value": "What is 2 + 2?"}, …]    -> the same
    0 -> "0"    False -> "False"    1e-07 -> "0.0000001"    ["4"] -> "4"    None, [] -> ""

A problem is one prompt. In a chat it is the only user message; an assistant's message after it is left out, and so is
a system message, which belongs in the recipe (`teachers.system`). Several user messages are refused. An answer
given as a chat is its last message, which must be the assistant's.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn

from hubkit.errors import InputError

__all__ = ["Cell", "look_up"]

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""Names of speakers in chats (role) and in ShareGPT's conversations (from)."""
_PYTHON_CHAT: Final = re.compile(r"\s*(array\()?\[\{'(role|content|from|value)': ")
_TEXT_CHUNKS: Final = {"text", "input_text", "output_text"}


@dataclass(frozen=True)
class Cell:
    """One value and its position. `where` names the row, such as "mine.jsonl:3: row 2"."""

    where: str
    column: str
    value: Any

    def refuse(self, what: str, remedy: str) -> NoReturn:
        raise InputError(f"{self.where}: column {self.column!r}: {what}", remedy)

    @property
    def only(self) -> Any:
        """The value; for a list with one element, that element."""
        value = self.value
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        return value

    def problem(self) -> str:
        """Returns the prompt, "" if there is none. Raises InputError for a value that is not one prompt."""
        chat = self._chat()
        if chat is None:
            return self._plain()
        users = [text for role, text in chat if role == "user"]
        roles = [role for role, _ in chat if role != "system"]
        if len(users) != 1 or roles not in (["user"], ["user", "assistant"]):
            self.refuse(
                f"a chat of {len(chat)} messages ({', '.join(role for role, _ in chat)}) is not one prompt",
                "a problem is one user message; put what it needs into that one",
            )
        return users[0]

    def answer(self) -> str:
        """Returns the known answer, "" if there is none. Raises InputError for a value that is not one answer."""
        chat = self._chat()
        if chat is None:
            return self._plain()
        if chat[-1][0] != "assistant":
            self.refuse("the chat does not end with an assistant's message", "name the column of the answer")
        return chat[-1][1]

    def system(self) -> str:
        """Returns the system message of a chat, "" if there is none."""
        return "\n".join(text for role, text in self._chat() or () if role == "system")

    def holding(self, value: Any) -> Cell:
        """The same cell with another value, such as one element of its list."""
        return Cell(self.where, self.column, value)

    def _plain(self) -> str:
        value = self.only
        if value is None or value == []:
            return ""
        if isinstance(value, bool | int):
            return str(value)
        if isinstance(value, str):
            if _PYTHON_CHAT.match(value):
                self.refuse("a chat in Python's notation", "store the chat as a list, or as JSON")
            return _clean(self, value)
        if isinstance(value, float):
            if not math.isfinite(value):
                self.refuse(f"{value} is not text", "leave the row out, or fill in the value")
            # "1e-07" would be read as a product with Euler's number by those who read formulas.
            text = str(value)
            return format(Decimal(text), "f") if "e" in text and abs(value) < 1e22 else text
        if isinstance(value, Decimal):
            if not value.is_finite():
                self.refuse(f"{value} is not text", "leave the row out, or fill in the value")
            return format(value, "f")
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                self.refuse("bytes that are not UTF-8", "store it as text")
        if isinstance(value, datetime.date | datetime.time):
            return str(value)
        if isinstance(value, list) and all(isinstance(part, dict) and "type" in part for part in value):
            return _content(self, value)
        if isinstance(value, Mapping):
            if value.keys() == {"text", "answer_start"}:  # SQuAD's answers
                return Cell(self.where, f"{self.column}.text", value["text"]).answer()
            if value.keys() >= {"type", "text"}:
                return _content(self, [value])
            self.refuse(
                f"a struct of {', '.join(map(repr, list(value)[:6]))} is not text",
                f"name the part you mean, such as {self.column}.{next(iter(value), 'text')}",
            )
        if isinstance(value, list):
            self.refuse(f"a list of {len(value)} values is not one text", "store one text, or a list of one")
        self.refuse(f"a {type(value).__name__} is not text", "store it as text")

    def _chat(self) -> list[tuple[str, str]] | None:
        """Returns (role, text) of each message; None if this is not a chat."""
        value = self.only
        if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
            try:
                value = json.loads(value)  # chats are often stored as JSON text
            except (ValueError, RecursionError):
                return None
        if isinstance(value, Mapping) and _is_message(value):
            value = [value]
        if not isinstance(value, list) or not value:
            return None
        if not all(isinstance(message, Mapping) and _is_message(message) for message in value):
            return None
        return [self._message(message) for message in value]

    def _message(self, message: Mapping[str, Any]) -> tuple[str, str]:
        by, what = ("role", "content") if "role" in message else ("from", "value")
        role = _ROLES.get(str(message[by]).lower())
        if role is None:
            self.refuse(
                f"a message by {message[by]!r}", "a problem is a chat of user, assistant and system only"
            )
        if message.get("tool_calls"):
            self.refuse("a message with tool calls", "problems are answered by text alone")
        return role, _content(self, message[what])


def _is_message(value: Mapping[str, Any]) -> bool:
    return value.keys() >= {"role", "content"} or value.keys() >= {"from", "value"}


def _content(cell: Cell, content: Any) -> str:
    """Text of a message: a string, or chunks such as {"type": "text", "text": …}."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _clean(cell, content)
    if isinstance(content, list) and all(isinstance(part, str | Mapping) for part in content):
        return "".join(_chunk(cell, part) for part in content)
    cell.refuse(f"a message whose content is a {type(content).__name__}", "content is text, or text chunks")


def _chunk(cell: Cell, part: str | Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return _clean(cell, part)
    kind = part.get("type", "text")
    if kind in _TEXT_CHUNKS and isinstance(part.get("text"), str):
        return _clean(cell, part["text"])
    cell.refuse(f"a part of type {kind!r}", "problems are text alone")


def _clean(cell: Cell, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        cell.refuse(
            f"the character {text[error.start]!a} at {error.start} is half of one",
            "fix the text in that row",
        )
    return text


def look_up(row: Mapping[str, Any], column: str) -> Any:
    """Returns the value of a column, or of a part of it such as reward_model.ground_truth. Raises KeyError."""
    if column in row:
        return row[column]
    value: Any = row
    parts = column.split(".")
    while parts:
        if not isinstance(value, Mapping):
            raise KeyError(column)
        # The longest name first: names may hold dots themselves.
        for end in range(len(parts), 0, -1):
            if (name := ".".join(parts[:end])) in value:
                value, parts = value[name], parts[end:]
                break
        else:
            raise KeyError(column)
    return value
