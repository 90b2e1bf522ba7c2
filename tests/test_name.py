"""On PyPI the name hubkit is another project's: nothing here installs it from there, or tells people to."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from support import ROOT

from hubkit.errors import RecipeError
from hubkit.executors.installation import requirement_lines
from hubkit.recipe.file import load_recipe

INSTALL = re.compile(
    r"\b(?:pipx?|pip3|uvx?|poetry|pdm|conda)\b[^`#\n]*?(?:\b(?:install|add|inject)|--with|--from)\b([^`#\n]*)"
)
FROM_PYPI = re.compile(r"hubkit(\[[\w,]*\])?([=<>~!].*)?")
PINNED = re.compile(r"\bhubkit(\[[\w,]*\])? ?[=<>~!]=")
HEADER = re.compile(r"^# /// script\n((?:#.*\n)+?)# ///$", re.MULTILINE)


def texts() -> dict[Path, str]:
    """The project's own text files, but this one."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = listed.stdout.splitlines() or [str(p.relative_to(ROOT)) for p in ROOT.glob("[!.]*/**/*.*")]
    found = {}
    for path in (ROOT / name for name in names):
        if path.is_file() and path != Path(__file__):
            raw = path.read_bytes()
            if b"\0" not in raw:
                found[path] = raw.decode("utf-8", "replace")
    return found


def offers(text: str) -> list[str]:
    """Parts of a text that would install hubkit from PyPI."""
    words = [word.strip("'\"`,;.") for match in INSTALL.finditer(text) for word in match[1].split()]
    pinned = [match[0] for match in PINNED.finditer(text)]
    return [word for word in words if FROM_PYPI.fullmatch(word)] + pinned


@pytest.mark.parametrize(
    "text",
    [
        "pip install hubkit",
        "run `pip install -c constraints/gpu.txt 'hubkit[vllm]'` first",
        "uv pip install --upgrade hubkit==0.2.0",
        "uvx --from hubkit hubkit recipe list",
        'needs = [f"hubkit=={__version__}"]',
    ],
)
def test_an_offer_is_found(text: str) -> None:
    assert offers(text)


def test_nothing_tells_people_to_install_it_from_pypi() -> None:
    read = texts()
    assert {"README.md", "vllm.py", "run.py", "Makefile"} <= {path.name for path in read}
    found = {str(path.relative_to(ROOT)): offers(text) for path, text in read.items()}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_scripts_say_where_it_is() -> None:
    seen = 0
    for path in (path for path in texts() if path.suffix == ".py"):
        for header in HEADER.findall(path.read_text(encoding="utf-8")):
            told = tomllib.loads("".join(line[2:] for line in header.splitlines(keepends=True)))
            if any(re.match(r"hubkit\b", line) for line in told["dependencies"]):
                seen += 1
                source = path.parent / told["tool"]["uv"]["sources"]["hubkit"]["path"]
                assert (source / "pyproject.toml").samefile(ROOT / "pyproject.toml"), path
    assert seen == 2


def test_jobs_install_what_is_installed_here_and_no_version_from_pypi() -> None:
    recipe = ROOT / "recipes/nano/recipe.yaml"
    jobs = load_recipe(recipe).run.jobs
    assert jobs.installs_this_hubkit
    assert requirement_lines([*jobs.dependencies, "vllm>=0.9"], "git+https://host/x@abc") == [
        "hubkit @ git+https://host/x@abc",
        "vllm>=0.9",
    ]
    assert requirement_lines(["HubKit[vllm]"], "file:///a.whl") == ["HubKit[vllm] @ file:///a.whl"]
    addressed = "hubkit @ git+https://host/x"
    given = load_recipe(recipe, [f"run.jobs.dependencies=['{addressed}']"]).run.jobs
    assert not given.installs_this_hubkit and requirement_lines(given.dependencies, "other") == [
        "hubkit @ git+https://host/x"
    ]
    for bad in ("hubkit==0.2.0", "Hubkit[vllm]>=0.1", "not a dependency"):
        with pytest.raises(RecipeError, match=re.escape(bad)):
            load_recipe(recipe, [f"run.jobs.dependencies=['{bad}']"])
