"""The store against a plain model of commits: whatever is done in whatever order, both have the same files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hubkit.localhub import fsck, gc
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.objects import Batch, Entry
from hubkit.localhub.storage.store import Change, Commit, Store

NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "a/x"])


class StoreModel(RuleBasedStateMachine):
    """Branches of one repo as plain dicts, next to the store's; gc closes and opens the store on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder)
        self.repo = self.store.create_repo("model", "o/r", False, "o")
        first = self.store.resolve(self.repo, "main")
        self.branches: dict[str, dict[str, bytes]] = {"main": self.contents(first.sha)}
        self.commits: dict[str, dict[str, bytes]] = {first.sha: dict(self.branches["main"])}
        self.heads: dict[str, str] = {"main": first.sha}
        self.parents: dict[str, str | None] = {first.sha: None}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def put(self, content: bytes) -> Entry:
        with Batch(self.store.objects) as batch:
            entry = batch.add(content)
            batch.keep()
        return entry

    def contents(self, revision: str) -> dict[str, bytes]:
        tree = self.store.tree(self.store.resolve(self.repo, revision))
        return {path: self.store.objects.read(entry) for path, entry in tree.items()}

    @rule(
        branch=st.sampled_from(["main", "b1", "b2"]),
        changes=st.lists(
            st.tuples(NAMES, st.sampled_from(["add", "delete", "folder"]), st.binary(max_size=3)), max_size=4
        ),
        stale=st.booleans(),
    )
    def commit(self, branch: str, changes: list[tuple[str, str, bytes]], stale: bool) -> None:
        expected = dict(self.branches[branch]) if branch in self.branches else None
        good = expected is not None and not stale
        wanted = []
        for name, what, content in changes:
            files = expected if expected is not None else {}
            if what == "add":
                files[name] = content
                wanted.append(Change(name, self.put(content)))
            elif what == "delete":
                good &= files.pop(name, None) is not None
                wanted.append(Change(name, None))
            else:
                inside = [path for path in files if path.startswith(name + "/")]
                good &= bool(inside)
                for path in inside:
                    del files[path]
                wanted.append(Change(name, None, folder=True))
        if expected is not None:
            good &= not any(other.startswith(path + "/") for path in expected for other in expected)
        try:
            made = self.store.commit(
                self.repo, f"refs/heads/{branch}", wanted, "t", "", "o", parent="f" * 40 if stale else None
            )
        except ApiError:
            assert not good
        else:
            assert good and expected is not None
            self.branches[branch] = expected
            self.note(branch, made)

    @rule(name=st.sampled_from(["b1", "b2"]))
    def branch(self, name: str) -> None:
        if name in self.branches:
            self.store.delete_ref(self.repo, f"refs/heads/{name}")
            del self.branches[name], self.heads[name]
        else:
            self.store.create_ref(self.repo, f"refs/heads/{name}", "main")
            self.branches[name] = dict(self.branches["main"])
            self.heads[name] = self.heads["main"]

    def note(self, branch: str, made: Commit) -> None:
        self.heads[branch] = made.sha
        self.commits[made.sha] = dict(self.branches[branch])
        self.parents[made.sha] = made.parent

    @rule(branch=st.sampled_from(["main", "b1", "b2"]))
    def squash(self, branch: str) -> None:
        if branch in self.branches:
            self.note(branch, self.store.squash(self.repo, branch, "t", "o"))
            assert self.parents[self.heads[branch]] is None

    @rule()
    def collect(self) -> None:
        """Garbage goes, and nothing else."""
        self.store.close()
        gc(self.folder)
        assert fsck(self.folder).problems == []
        self.store = Store(self.folder)
        needed: set[str] = set()
        for head in self.heads.values():
            current: str | None = head
            while current is not None:
                needed.add(current)
                current = self.parents[current]
        for sha in self.commits.keys() - needed:
            with pytest.raises(ApiError):
                self.store.resolve(self.repo, sha)
            del self.commits[sha]

    @invariant()
    def same(self) -> None:
        assert {name for name, _ in self.store.refs(self.repo)} == {f"refs/heads/{b}" for b in self.branches}
        for branch, files in self.branches.items():
            assert self.contents(branch) == files
        for sha in list(self.commits)[-3:]:
            assert self.contents(sha) == self.commits[sha]


TestStore = StoreModel.TestCase
TestStore.settings = settings(
    max_examples=10, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)
