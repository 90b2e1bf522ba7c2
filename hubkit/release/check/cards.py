"""Checks cards: renders them again from the published records and data, and compares them character by character.

Machine-readable figures (model-index, .eval_results) are always compared with the outputs. A text that differs is wrong
only where this very commit of hubkit published it, since another one may word it differently.
"""

from __future__ import annotations

from itertools import chain

from hubkit.errors import InputError, first_line
from hubkit.recipe.repos import problems_repo
from hubkit.release.boards import OWN_SCALE, Boards
from hubkit.release.cards import CardContext
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import LATER, Published, Repo
from hubkit.release.layout import Files, Material, RepoFiles, layout, space
from hubkit.release.leaderboard import FOLDER, Board, load_yaml
from hubkit.release.manifest import PROVENANCE
from hubkit.release.results import Row, at_level, student_rows
from hubkit.release.submission import file_name

__all__ = ["check_cards"]


def check_cards(release: Published, claims: Claims) -> None:
    """Check every README, eval.yaml, adapter configuration and figure of a result file."""
    rows = student_rows(release.facts)
    for repo in release.repos.values():
        if repo.type == "model":
            _figures(
                release,
                repo,
                [r for r in rows if release.manifest.models.get(r["student"]) == repo.id],
                claims,
            )
    reason = _other_code(release)
    try:
        _render(release, claims, reason)
    except Exception as error:
        if not reason:
            raise
        line = first_line(error) or type(error).__name__
        claims.skip(release.name, "cards rendered again", f"{reason}; it cannot: {line}")


def _render(release: Published, claims: Claims, reason: str) -> None:
    """`reason`: why what is rendered now may differ, in which case only what is the same was checked; "" if it may
    not."""
    cards = _context(release)
    for expected in chain.from_iterable(layout(cards, _material(release))):
        there = release.repos.get(expected.id)
        if there is None or there.released is None:
            claims.wrong(expected.id, "repo", "not in release.json", "part of the release")
            continue
        _compare(expected, there, claims, reason)
        cards.commits[there.id] = there.released.sha
    listed = [repo.model_dump() for repo in release.manifest.repos]
    expected = space(cards, listed)
    _compare(expected, release.space, claims, reason, code=True)
    # A Space runs whatever module lies beside its own.
    others = [
        n for n in release.space.files if n not in expected.files and not n.startswith((".", "LICENSE"))
    ]
    if not reason:
        claims.compare_rows(
            release.space.id, "no files but those of the app", others, len(release.space.files)
        )


def _other_code(release: Published) -> str:
    """Returns why this hubkit may render cards differently than the one that published. Returns "" if it does not."""
    from hubkit.store import environment

    then, now = release.manifest.made, environment()
    names = [
        f"{e.get('packages', {}).get('hubkit', '?')} {str(e.get('git_sha', ''))[:12]}" for e in (then, now)
    ]
    return (
        "" if names[0] == names[1] else f"published by hubkit {names[0].strip()}, this is {names[1].strip()}"
    )


def _context(release: Published) -> CardContext:
    recipe, manifest = release.recipe, release.manifest
    local = recipe.hub.endpoint == "local"
    return CardContext(
        recipe=recipe,
        facts=release.facts,
        endpoint="" if local else release.access.endpoint,
        problems=problems_repo(recipe),
        evals=manifest.evals,
        space=f"{release.name}-compare",
        collection=manifest.collection,
        models={n: m for n, m in manifest.models.items() if n not in manifest.pinned},
        pinned=manifest.pinned,
        commits={p["model"]: p["revision"] for n, p in manifest.pinned.items() if "/" not in n},
    )


def _material(release: Published) -> Material:
    def files_of(name: str) -> Files:
        repo = release.repos[release.manifest.models[name]]
        # Only names matter for a card, and the text that publishing adds the base's address to.
        files: Files = dict.fromkeys(repo.files, b"")
        if "adapter_config.json" in files:
            files["adapter_config.json"] = repo.path("adapter_config.json")
        return files

    return Material(files_of, release.manifests, Boards({}, {}), release.work / "layout")


def _compare(expected: RepoFiles, repo: Repo, claims: Claims, reason: str, code: bool = False) -> None:
    for name, content in sorted(expected.files.items()):
        rendered = isinstance(content, bytes) and content and not name.startswith((PROVENANCE, *LATER))
        if not (rendered or code) or "/" in name:
            continue
        wanted = content if isinstance(content, bytes) else content.read_bytes()
        what = f"{name}: rendered again"
        there = repo.path(name).read_bytes() if name in repo.files else None
        if there == wanted:
            claims.compare(repo.id, what, "same text", "same text")
        elif reason:
            claims.skip(repo.id, what, reason)
        elif there is None:
            claims.wrong(repo.id, what, "missing", f"{len(wanted):,} bytes")
        else:
            published, again = _first_difference(there, wanted)
            claims.wrong(repo.id, what, published, again)


def _first_difference(a: bytes, b: bytes) -> tuple[str, str]:
    lines = [text.decode("utf-8", "replace").splitlines() for text in (a, b)]
    for x, y in zip(*lines, strict=False):
        if x != y:
            start = next(
                (i for i, (m, n) in enumerate(zip(x, y, strict=False)) if m != n), min(len(x), len(y))
            )
            begin = max(0, start - 30)
            return x[begin:], y[begin:]
    return f"{len(lines[0])} lines", f"{len(lines[1])} lines"


def _figures(release: Published, repo: Repo, rows: list[Row], claims: Claims) -> None:
    """model-index of the card and the result files, beside the results of this model."""
    from huggingface_hub import ModelCard

    def row_of(benchmark: str, metric: str, name: str) -> Row:
        """The row that a figure is of: a mixture has one for each level of effort, which the figure's name says."""
        plain = metric.replace("_", " ")
        return next(
            (r for r in rows if r["benchmark"] == benchmark and name == at_level(plain, r.get("level"))), {}
        )

    if "README.md" in repo.files and rows:
        text = repo.path("README.md").read_text(encoding="utf-8")
        try:
            results = ModelCard(text).data["eval_results"] or []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the card of {repo.id} cannot be read: {str(error).splitlines()[0]}", ""
            ) from None
        for result in results:
            name = str(result.dataset_name).removeprefix(f"{release.recipe.name} ")
            row = row_of(name, result.metric_type, str(result.metric_name))
            claims.compare(
                repo.id,
                f"model-index: {at_level(result.metric_type, row.get('level'))} on {name}",
                result.metric_value,
                row.get(result.metric_type),
            )
    released = release.manifest
    for path in repo.below(f"{FOLDER}/"):
        for entry in load_yaml(repo.path(path).read_bytes(), path) or []:
            about = entry.get("dataset", {}) if isinstance(entry, dict) else {}
            board = Board(released.problems or "", str(about.get("task_id")), "")
            own = [
                r
                for r in rows
                if released.problems
                and r["benchmark"] == board.task
                and path == file_name(board, r.get("level") or "")
            ]
            if about.get("id") == released.problems and own:
                value = OWN_SCALE.value(own[0]["accuracy"])
                claims.compare(repo.id, f"{path}: value", entry.get("value"), value)
                revision = next(r.sha for r in released.repos if r.id == released.problems)
                claims.compare(repo.id, f"{path}: revision", about.get("revision"), revision)
            else:
                claims.skip(
                    repo.id,
                    f"{path}: value",
                    f"for {str(about.get('id'))[:80]}, which is not of this release",
                )
