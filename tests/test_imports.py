"""The layering of the design: imports point one way and never in a circle, and heavy packages wait."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support import ROOT

from hubkit.recipe.steps import STEPS
from hubkit.traces.compressors import COMPRESSORS
from hubkit.traces.origins import ORIGINS

HEAVY = {"torch", "transformers", "trl", "peft", "vllm", "lighteval", "gradio", "datasets", "matplotlib"}
# A module may import from its own layer and from those before it; the longest name that fits counts.
LAYERS = [
    ["hubkit.errors", "hubkit.allocator", "hubkit.devices", "hubkit.processes", "hubkit.__version__"],
    ["hubkit.localhub"],
    [
        "hubkit.records",
        "hubkit.section",
        "hubkit.licenses",
        "hubkit.precision",
        "hubkit.hub",
        "hubkit.push",
        "hubkit.verifiers",
    ],
    ["hubkit.store"],
    ["hubkit.engines", "hubkit.executors.call", "hubkit.executors.rank"],
    ["hubkit.problems", "hubkit.traces", "hubkit.students", "hubkit.evaluation"],
    ["hubkit.recipe.steps", "hubkit.recipe.runtime"],
    ["hubkit.recipe.config"],
    ["hubkit.recipe.explain", "hubkit.recipe.repos"],
    ["hubkit.recipe.file", "hubkit.release", "hubkit.executors"],
    ["hubkit.recipe.pins", "hubkit.recipe.graph", "hubkit.recipe.plan"],
    ["hubkit.recipe.pipeline"],
    ["hubkit.recipe.amounts", "hubkit.recipe.estimate", "hubkit.recipe.preflight"],
    ["hubkit.api", "hubkit.stages"],
    ["hubkit.cli", "hubkit.__main__"],
]
FUNCTIONS = [*filter(None, STEPS.values())]
FUNCTIONS += [kind.step for table in (ORIGINS, COMPRESSORS) for kind in table.values()]
STEP_MODULES = {function.partition(":")[0] for function in FUNCTIONS}
MODULES = sorted(p for p in (ROOT / "hubkit").rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path) for path in MODULES}


def layer_of(module: str) -> int:
    found = [
        (len(name), number)
        for number, layer in enumerate(LAYERS)
        for name in layer
        if module == name or module.startswith(name + ".")
    ]
    assert found or module in ("hubkit", "hubkit.recipe"), f"{module} has no layer: say where it belongs"
    return max(found)[1] if found else -1


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a module imports, at its top or anywhere; not those for types alone."""
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
            below = {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
            # `from hubkit.recipe import plan` is an import of plan, not of what the package's own file holds.
            found |= below if len(below) == len(node.names) else {node.module, *below}
    return found


GRAPH = {name_of(path): imports(path) & NAMES for path in MODULES}


@pytest.mark.parametrize("module", sorted(NAMES))
def test_imports_point_one_way(module: str) -> None:
    for imported in GRAPH[module]:
        assert layer_of(imported) <= layer_of(module) or module == "hubkit", f"{module} imports {imported}"


def test_no_step_imports_a_step() -> None:
    assert len(STEP_MODULES) >= 12 and STEP_MODULES <= NAMES
    for module in STEP_MODULES:
        assert not GRAPH[module] & STEP_MODULES - {module}, f"the step {module} imports another"


def test_no_imports_in_circles() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_local_hub_imports_nothing_else_of_hubkit() -> None:
    for module in (name for name in NAMES if name.startswith("hubkit.localhub")):
        outside = {name for name in GRAPH[module] if not name.startswith("hubkit.localhub")}
        assert outside <= {"hubkit.errors"}, module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_needed(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY
    assert not found or "evaluation/model.py" in str(path) or "evaluation/tasks.py" in str(path), found


@pytest.mark.parametrize("module", ["hubkit.cli", "hubkit"])
def test_nothing_heavy_is_loaded_before_it_is_used(module: str) -> None:
    """So that `hubkit --help` and `import hubkit` answer at once."""
    code = (
        f"import sys, {module}\n"
        f"heavy = {sorted(HEAVY | {'pyarrow', 'pydantic', 'huggingface_hub', 'uvicorn'})!r}\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_is_made_without_what_steps_need_to_run() -> None:
    """`plan`, `status` and a `run` with nothing to do import every step's module for its version."""
    code = (
        "import sys\n"
        "from hubkit.recipe import pipeline, plan, preflight\n"
        "from hubkit.recipe.steps import STEPS\n"
        "import importlib\n"
        "[importlib.import_module(function.partition(':')[0]) for function in STEPS.values() if function]\n"
        f"print([name for name in {sorted(HEAVY | {'pandas', 'scipy', 'sympy'})!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
