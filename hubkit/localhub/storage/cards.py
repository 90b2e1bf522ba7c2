"""What the Hub reads from a README: its YAML becomes cardData and tags."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Final

import yaml

__all__ = ["as_json", "front_matter", "load_yaml", "parse_card", "tags_of", "validate"]

_FRONT: Final = re.compile(r"\A(?:\ufeff)?\s*---[ \t]*\r?\n(.*?)(?:\r?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_ARXIV: Final = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})", re.IGNORECASE)

_DEEPEST: Final = 64
_OPENING: Final = (
    yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken, yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
)  # fmt: skip
_CLOSING: Final = (yaml.BlockEndToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)

_PLAIN: Final = ("tags", "library_name", "pipeline_tag")
"""Fields whose values are tags as they are."""
_PREFIXED: Final = {
    "license": "license",
    "language": "language",
    "datasets": "dataset",
    "task_categories": "task_categories",
    "task_ids": "task_ids",
    "size_categories": "size_categories",
    "source_datasets": "source_datasets",
    "multilinguality": "multilinguality",
    "annotations_creators": "annotations_creators",
    "language_creators": "language_creators",
}


def as_json(value: Any) -> Any:
    """Returns a value of YAML as JSON has it: dates as text, all keys as text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def load_yaml(text: str) -> Any:
    """YAML as far as anything here needs it.

    Nested aliases can blow a small text up to gigabytes, and deep nesting overflows the C parser's stack.
    """
    depth = 0
    for token in yaml.scan(text, yaml.CSafeLoader):
        if isinstance(token, yaml.AliasToken):
            raise yaml.YAMLError("YAML anchors are not allowed")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > _DEEPEST:
            raise yaml.YAMLError("nested too deeply")
    return yaml.load(text, yaml.CSafeLoader)


def front_matter(text: str) -> tuple[str, str]:
    """The YAML at a card's top, and the Markdown below it."""
    front = _FRONT.match(text)
    return (front[1], text[front.end() :]) if front is not None else ("", text)


def _load(text: str) -> tuple[dict[str, Any], str]:
    """Returns the fields of a card, and a sentence on what is wrong with them."""
    try:
        data = load_yaml(front_matter(text)[0])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return {}, f"invalid YAML: {error}"
    if data is None:
        return {}, ""
    if not isinstance(data, dict):
        return {}, "the metadata is not a mapping"
    plain = as_json(data)
    return plain if isinstance(plain, dict) else {}, ""


def parse_card(text: str) -> dict[str, Any]:
    """Returns the fields of a card; {} if its YAML cannot be read."""
    return _load(text)[0]


def validate(text: str) -> tuple[list[str], list[str]]:
    """Returns errors and warnings about a README, for clients that ask before they commit it."""
    card, error = _load(text)
    if error:
        return [error], []
    errors = []
    for field in ("tags", "datasets", "configs"):
        if not isinstance(card.get(field, []), list | str | None):
            errors.append(f"{field} must be a list")
    configs = card.get("configs")
    if isinstance(configs, list):
        for config in configs:
            if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
                errors.append("each of configs must have a config_name")
    return errors, [] if card else ["empty or missing yaml metadata in repo card"]


def _values(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str) and item]


def tags_of(card: dict[str, Any], text: str) -> list[str]:
    tags = [value for field in _PLAIN for value in _values(card.get(field))]
    for field, prefix in _PREFIXED.items():
        tags += [f"{prefix}:{value}" for value in _values(card.get(field))]
    relation = card.get("base_model_relation")
    for base in _values(card.get("base_model")):
        tags.append(f"base_model:{base}")
        if isinstance(relation, str):
            tags.append(f"base_model:{relation}:{base}")
    tags += [f"arxiv:{number}" for number in _ARXIV.findall(text)]
    return list(dict.fromkeys(tags))
