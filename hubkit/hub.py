"""The client side of the Hub: its address and token, what is read from it, retries and errors. `push` writes to it.

    resolve("org/model", "main")             -> "9c1f…", the commit
    download_model("org/model", "9c1f…")     -> a folder with weights, configuration and tokenizer, and no code

Every request of hubkit to a Hub goes through `attempt`. Failures raise HubError, whose text says what to change and
never contains a token.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from hubkit.errors import HubError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = [
    "MODEL_FILES",
    "Access",
    "RepoType",
    "attempt",
    "check_namespace",
    "default_access",
    "download_file",
    "download_model",
    "download_tokenizer",
    "list_spaces",
    "own_namespaces",
    "repo_path",
    "resolve",
    "weight_headers",
    "weight_shapes",
]

RepoType = Literal["model", "dataset", "space"]
T = TypeVar("T")

MODEL_FILES: Final = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.tiktoken", "tokenizer.model")
"""The files a model is loaded from. Pickled weights (*.bin, *.pt) and Python files are neither fetched nor pushed."""
_DUPLICATES: Final = ("original/*", "metal/*", "consolidated*.safetensors")
"""Copies of the weights in the formats of other programs."""
_DELAYS: Final = [1.0, 2.0, 4.0, 8.0, 16.0]
"""Seconds before each retry, plus jitter. Where the Hub counts too many requests, it says itself how long to wait."""
_LONGEST_WAIT: Final = 300
"""Longest wait in seconds that a server may ask for: the Hub counts its rate limits in windows of five minutes."""


@dataclass(frozen=True)
class Access:
    """The address of a Hub and the token for it."""

    endpoint: str
    token: str | None = field(default=None, repr=False)

    def api(self) -> HfApi:
        from huggingface_hub import HfApi

        # False, not None: None would look for the user's own token and send it to any endpoint.
        return HfApi(endpoint=self.endpoint, token=self.token or False)


def default_access() -> Access:
    """The Hub that HF_ENDPOINT names and the token that `hf auth login` or HF_TOKEN left for it."""
    from huggingface_hub import get_token

    return Access(os.environ.get("HF_ENDPOINT") or "https://huggingface.co", get_token())


def repo_path(repo_id: str, repo_type: RepoType) -> str:
    """Returns the path of a repo's page: datasets/org/name."""
    return repo_id if repo_type == "model" else f"{repo_type}s/{repo_id}"


def resolve(repo_id: str, revision: str, repo_type: RepoType = "model", access: Access | None = None) -> str:
    """Returns the commit that a branch or tag points to; "" is the default branch. Raises HubError if there is none."""
    access = access or default_access()
    api = access.api()
    what = f"look up {repo_type} {repo_id}" + (f" at {revision}" if revision else "")
    # This is asked before any work starts, so an unreachable Hub is reported at once.
    info = attempt(
        access,
        what,
        lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision or None),
        patient=False,
    )
    return str(info.sha)


def download_model(repo_id: str, revision: str, access: Access | None = None) -> Path:
    """Fetch a model's weights, configuration and tokenizer, and no code. Returns the local folder."""
    folder = _download(f"model {repo_id}", repo_id, revision, _DUPLICATES, access)
    if not any(folder.glob("*.safetensors")):
        raise _no_safetensors(repo_id)
    return folder


def weight_headers(repo_id: str, revision: str, access: Access | None = None) -> Any:
    """Returns the headers of a model's safetensors (huggingface_hub's SafetensorsRepoMetadata); only these are
    fetched. Raises HubError for a model without safetensors, or with incomplete ones."""
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    access = access or default_access()
    api = access.api()
    disable_progress_bars()  # of the headers of many parts
    try:
        return attempt(
            access,
            f"look up the weights of model {repo_id}",
            lambda: api.get_safetensors_metadata(repo_id, revision=revision or None),
            patient=False,
        )
    except NotASafetensorsRepoError:
        raise _no_safetensors(repo_id) from None
    except SafetensorsParsingError as error:
        told = first_line(error)
        raise HubError(f"model {repo_id}: {told}", "choose a revision whose files are whole") from None


def weight_shapes(repo_id: str, revision: str, access: Access | None = None) -> dict[str, list[int]]:
    """Returns weight -> its shape, of a model on a Hub. Raises HubError as `weight_headers` does."""
    files = weight_headers(repo_id, revision, access).files_metadata.values()
    return {name: list(tensor.shape) for file in files for name, tensor in file.tensors.items()}


def _no_safetensors(repo_id: str) -> HubError:
    remedy = "convert it, or choose a revision that has them; pickles are not read"
    return HubError(f"model {repo_id} has no safetensors weights", remedy)


def download_tokenizer(repo_id: str, revision: str, access: Access | None = None) -> Path:
    """Fetch the files that download_model fetches, without the weights. Returns the local folder."""
    ignored = ("*.safetensors", *_DUPLICATES)
    return _download(f"tokenizer of {repo_id}", repo_id, revision, ignored, access)


def _download(
    what: str, repo_id: str, revision: str, ignored: tuple[str, ...], access: Access | None
) -> Path:
    from huggingface_hub import snapshot_download

    access = access or default_access()
    return attempt(
        access,
        f"download {what}",
        lambda: Path(
            snapshot_download(
                repo_id,
                revision=revision or None,
                endpoint=access.endpoint,
                token=access.token or False,
                allow_patterns=list(MODEL_FILES),
                ignore_patterns=list(ignored),
            )
        ),
        patient=False,
    )


def download_file(
    repo_id: str, path: str, repo_type: RepoType = "model", revision: str = "", access: Access | None = None
) -> Path:
    """Fetch one file of a repo. Returns its path in the cache."""
    from huggingface_hub import hf_hub_download

    access = access or default_access()
    return attempt(
        access,
        f"download {path} of {repo_type} {repo_id}",
        lambda: Path(
            hf_hub_download(
                repo_id,
                path,
                repo_type=repo_type,
                revision=revision or None,
                endpoint=access.endpoint,
                token=access.token or False,
            )
        ),
        patient=False,
    )


def list_spaces(access: Access) -> list[str]:
    """Ids of the Spaces on a Hub, at most 1000."""
    api = access.api()
    return attempt(access, "list the Spaces", lambda: [space.id for space in api.list_spaces(limit=1000)])


def check_namespace(access: Access, namespace: str) -> None:
    """Raise HubError if the token cannot write to this user or organisation."""
    if not access.token:
        raise HubError(f"no token for {access.endpoint}", "run `hf auth login`, or set HF_TOKEN")
    user = attempt(access, "ask who the token belongs to", access.api().whoami)
    # What a fine-grained token may do is the Hub's to say, when it comes to that.
    if ((user.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise HubError("the token may only read", "use one with write access to the namespace")
    names = own_namespaces(user)
    if namespace not in names:
        raise HubError(
            f"the token may not write to {namespace} (it can to {', '.join(names)})",
            "choose one of those (in a recipe: hub.namespace), or log in as a member of it",
        )


def own_namespaces(user: Mapping[str, Any]) -> list[str]:
    """Of whoami's answer: the user, and the organisations in which they are more than readers."""
    orgs = user.get("orgs") or []
    return [user["name"], *(org["name"] for org in orgs if org.get("roleInOrg") != "read")]


def attempt(access: Access, what: str, call: Callable[[], T], patient: bool = True) -> T:
    """Call, and retry after temporary errors. Raises HubError for other errors and after the last retry.

    Without `patient`, an unreachable Hub is not tried again (huggingface_hub retries downloads itself).
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import HFValidationError

    for delay in [*_DELAYS, None]:
        try:
            return call()
        # hf_xet raises RuntimeError for its transfers.
        except (HTTPError, HFValidationError, OSError, RuntimeError, ValueError) as error:
            wait = _wait(error, delay)
            if wait is None or (not patient and _unreachable(error)):
                # Not chained: the original carries the request, and with it the token.
                raise _explain(access, what, error) from None
            time.sleep(wait)
    raise AssertionError("the last round either returns or raises")


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _unreachable(error: BaseException) -> bool:
    """Whether no response came: connection refused, timed out or cut off."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # snapshot_download hides the cause in this
        return True
    return isinstance(error, HTTPError | ConnectionError | TimeoutError) and _status(error) is None


def _wait(error: BaseException, delay: float | None) -> float | None:
    """Seconds to wait before the next try. Returns None if there should be none."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if delay is None or isinstance(error, OfflineModeIsEnabled):
        return None
    status = _status(error)
    if status == 429:
        seconds = _asked_wait(error.response.headers)  # type: ignore[attr-defined]
        seconds = delay if seconds is None else seconds
        return seconds + _jitter() if seconds <= _LONGEST_WAIT else None
    passing = status in (408, 412, 425, 500, 502, 503, 504) or _unreachable(error)
    if passing or (type(error) is RuntimeError and status is None):
        return delay + _jitter() * delay / 2
    return None


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server that has counted too many requests asks to wait. Returns None if it does not say.

    The Hub says when its window ends (`RateLimit: "api";r=0;t=55`), others `Retry-After: 55`.
    """
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limits = parse_ratelimit_headers(headers)
    if limits is not None and limits.remaining == 0:
        return limits.reset_in_seconds + 1.0  # its seconds are rounded down
    asked = headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else None


def _jitter() -> float:
    """A number from 0 to 1, so that clients that failed together do not retry together."""
    return random.random()  # noqa: S311


def _explain(access: Access, what: str, error: BaseException) -> HubError:
    """The error as a HubError: what failed, and what to change, without the token."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status, where = _status(error), access.endpoint
    said = str(getattr(error, "server_message", None) or error)
    said = " ".join(said.split())[:300]
    if access.token:
        said = said.replace(access.token, "***")
    failed = f"could not {what}"
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"{failed}: offline mode is on", "unset HF_HUB_OFFLINE")
    if status == 401 and not isinstance(error, GatedRepoError) and access.token:
        return HubError(f"{failed}: {where} does not know this token", login)
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{failed}: its owner asks for terms to be accepted", f"accept them on its page, then {login}"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{failed}: no such revision", "check the branch, tag or commit")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{failed}: it is not on {where}, or it is private", f"check its name; if private, {login}"
        )
    if status == 401:
        return HubError(f"{failed}: {where} wants a login", login)
    if status == 403:
        return HubError(f"{failed}: the token is not allowed to ({said})", "use one with write access to it")
    if status == 429:
        return HubError(
            f"{failed}: rate limit of {where}", "wait and run again; what is done is not repeated"
        )
    if status == 412:
        return HubError(
            f"{failed}: somebody else keeps committing to it", "stop the other run, then run again"
        )
    if status is not None and status >= 500:
        return HubError(f"{failed}: {where} answered {status} ({said})", "run again later")
    if _unreachable(error):
        return HubError(
            f"{failed}: {where} cannot be reached", "check the network and HF_ENDPOINT, then run again"
        )
    return HubError(f"{failed}: {said}", "see the message; what is done is not repeated by another run")
