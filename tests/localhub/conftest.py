"""Real clients against a real local Hub on a free port, over both of the transfers they have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubkit.localhub import LocalHub


@pytest.fixture(scope="session", autouse=True)
def _client_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["HF_XET_CACHE"] = str(tmp_path_factory.mktemp("xet"))
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="module")
def local_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("local") / "hub") as hub:
        yield hub


@pytest.fixture(params=["xet", "lfs"])
def transfer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client's own switch, which HF_HUB_DISABLE_XET sets at import."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


@pytest.fixture
def client_environment(local_hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """What a user has who set HF_ENDPOINT and nothing else."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return kept | {"HF_ENDPOINT": local_hub.endpoint, "HF_HOME": str(tmp_path / "hf_home")}


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return HfApi(endpoint=local_hub.endpoint, token=local_hub.token)


@pytest.fixture
def anonymous(local_hub: LocalHub) -> HfApi:
    return HfApi(endpoint=local_hub.endpoint, token=False)


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "local/" + re.sub("[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")
    api.create_repo(name)
    yield name
    api.delete_repo(name, missing_ok=True)
