"""The exceptions of hubkit.

HubkitError                 what the CLI prints as one line, with its remedy
├── RecipeError             the recipe file is wrong: names file, line, key
├── InputError              data is wrong: a problem set, a trace file, a model folder
├── StepError               a step could not do its work
│   └── GateError           a check before or after expensive work refused the result
├── EngineError             text generation failed for all requests, or the engine could not start
├── HubError                the Hub refused, is not reachable, or holds something unexpected
└── BusyError               another run holds this folder
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "EngineError",
    "GateError",
    "HubError",
    "HubkitError",
    "InputError",
    "RecipeError",
    "StepError",
    "first_line",
]


class HubkitError(Exception):
    """Base of all errors that a user can act on. `remedy` says what to change."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class RecipeError(HubkitError):
    """The recipe is wrong."""


class InputError(HubkitError):
    """Data that a step was given is wrong."""


class StepError(HubkitError):
    """A step could not do its work."""


class GateError(StepError):
    """A check refused to let a run go on with something worthless."""


class EngineError(HubkitError):
    """Text generation cannot go on."""


class HubError(HubkitError):
    """A Hub operation failed."""


class BusyError(HubkitError):
    """Another process is at work in the same folder."""


def first_line(error: BaseException, most: int = 200) -> str:
    """Returns the first line of an error's text, at most `most` characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]
