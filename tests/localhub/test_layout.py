"""The local Hub is one room with one door: what it imports, in which direction, and what it needs to start."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support import ROOT

PACKAGE = ROOT / "hubkit/localhub"
BELOW = {"storage": {"storage"}, "api": {"storage", "api"}, "pages": {"storage", "api", "pages"}}
"""What each folder may import of the local Hub."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# Stands for an environment in which nothing is installed but what the local Hub needs. Whatever else is asked for,
# a module of hubkit's included, is not found. markupsafe and so on are what the named packages import themselves.
START = """
import importlib.abc, runpy, sys
NEEDED = {"starlette", "uvicorn", "jinja2", "yaml", "markdown_it", "pyarrow", "numpy", "nh3", "pathspec"}
NEEDED |= {"anyio", "sniffio", "idna", "h11", "click", "typing_extensions", "mdurl", "markupsafe", "_yaml"}
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        own = name in ("hubkit", "hubkit.errors") or (name + ".").startswith("hubkit.localhub.")
        if own or first in NEEDED or first in sys.stdlib_module_names:
            return None
        raise ModuleNotFoundError(f"refused: {name}", name=name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["hubkit.localhub", *sys.argv[1:]]
runpy.run_module("hubkit.localhub", run_name="__main__", alter_sys=True)
"""


def imports(path: Path) -> set[str]:
    """All modules of hubkit that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name.split(".")[0] == "hubkit"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    for imported in imports(MODULES[module]) - {"hubkit.errors"}:
        assert imported in MODULES, f"{module} imports {imported}, which is outside the local Hub"
        folder = module.split(".")[2] if module.count(".") > 1 else ""
        if folder in BELOW:
            assert imported.split(".")[2] in BELOW[folder], f"{module} imports {imported}"


def test_no_import_cycles() -> None:
    graph = {module: imports(path) & MODULES.keys() for module, path in MODULES.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a cycle
    assert set(order) == set(MODULES)


def test_others_use_the_door() -> None:
    inside = set(MODULES) - {"hubkit.localhub"}
    for path in (ROOT / "hubkit").rglob("*.py"):
        if PACKAGE not in path.parents:
            assert not imports(path) & inside, f"{path} imports {imports(path) & inside}"


def test_it_starts_where_nothing_else_is_installed(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    # -S -I would take the packages away too; so the hook refuses them.
    server = subprocess.Popen([sys.executable, "-c", START, str(folder)], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 30
        while not (folder / "endpoint").exists():
            assert server.poll() is None and time.monotonic() < until, server.communicate(timeout=5)[1]
            time.sleep(0.02)
        endpoint = json.loads((folder / "endpoint").read_text())["endpoint"]
        token = (folder / "token").read_text().strip()

        def ask(path: str, body: bytes | None = None, **headers: str) -> str:
            request = urllib.request.Request(endpoint + path, body, headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return str(answer.read().decode())

        lines = [
            {"key": "header", "value": {"summary": "add"}},
            {"key": "file", "value": {"path": "README.md", "content": "# A card\n"}},
            {"key": "file", "value": {"path": "a.jsonl", "content": '{"question": "1 + 1"}\n'}},
        ]
        sent = {"Authorization": f"Bearer {token}"}
        ask("/api/repos/create", b'{"name": "x", "type": "dataset"}', **sent)
        commit = "\n".join(map(json.dumps, lines)).encode()
        ask("/api/datasets/local/x/commit/main", commit, **sent)
        assert "A card" in ask("/datasets/local/x", accept="text/html")
        assert "question" in ask("/datasets/local/x/viewer", accept="text/html")
        assert json.loads(ask("/api/datasets/local/x"))["siblings"]
    finally:
        server.terminate()
        _, said = server.communicate(timeout=20)
    assert "refused" not in said
