"""The layering of the design: imports point one way, and heavy packages wait until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

HEAVY = {"torch", "transformers", "trl", "peft", "vllm", "lighteval", "gradio", "datasets", "matplotlib"}
# A module may import from its own layer and from those before it. Steps never import other steps,
# but what several of them share (verify, thinking, statistics) stands before them.
LAYERS = [
    ["hubkit.errors", "hubkit.processes", "hubkit.__version__", "hubkit.localhub"],
    ["hubkit.records", "hubkit.section", "hubkit.hub", "hubkit.verifiers"],
    ["hubkit.store"],
    ["hubkit.problems"],
    ["hubkit.engines.settings"],
    ["hubkit.recipe.runtime"],
    ["hubkit.recipe.config"],
    ["hubkit.recipe.file"],
    ["hubkit.engines"],
    [
        "hubkit.problems.problems",
        "hubkit.problems.contamination",
        "hubkit.traces",
        "hubkit.students",
        "hubkit.evaluation",
        "hubkit.release",
        "hubkit.executors",
    ],
    ["hubkit.recipe.plan"],
    ["hubkit.recipe.pipeline"],
    ["hubkit.recipe.estimate"],
    ["hubkit.recipe.preflight"],
    ["hubkit.cli", "hubkit.__main__"],
]
STEPS = {
    "hubkit.problems.problems",
    "hubkit.problems.contamination",
    "hubkit.traces.origins.teacher",
    "hubkit.traces.variants.compressed",
    "hubkit.traces.variants.truncated",
    "hubkit.traces.matched",
    "hubkit.students.student",
    "hubkit.evaluation.evaluation",
    "hubkit.release.report",
    "hubkit.release.publish",
}
MODULES = sorted(p for p in (ROOT / "hubkit").rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    """The layer of the longest listed name that the module is or lies in."""
    found = [
        (len(name), i)
        for i, layer in enumerate(LAYERS)
        for name in layer
        if module == name or module.startswith(name + ".")
    ]
    package = any(name.startswith(module + ".") for layer in LAYERS for name in layer)
    return max(found)[1] if found else -1 if package else len(LAYERS)


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skip = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    module = name_of(path)
    for imported in imports(path):
        if imported.startswith("hubkit."):
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"
            if module in STEPS:
                other = imported.rsplit(".", 1)[0] if imported.rsplit(".", 1)[0] in STEPS else imported
                assert other not in STEPS - {module}, f"the step {module} imports the step {other}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_needed(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY
    assert not found or "evaluation/model.py" in str(path) or "evaluation/tasks.py" in str(path), found


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, hubkit.cli\n"
        f"heavy = {sorted(HEAVY | {'pyarrow', 'pydantic', 'huggingface_hub', 'uvicorn'})!r}\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
