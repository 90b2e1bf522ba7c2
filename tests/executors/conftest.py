from __future__ import annotations

from typing import Any

import pytest
from executors.scenario import arguments, outputs
from support import hubkit


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Any]]:
    """What the small recipe's steps make on this machine's workers."""
    root = tmp_path_factory.mktemp("local")
    done = hubkit(*arguments(root, "local"), timeout=800)
    assert done.returncode == 0, done.stderr
    return outputs(root)
