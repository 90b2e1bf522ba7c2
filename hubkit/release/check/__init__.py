"""`hubkit release check`: the claims of a published release, computed again from its published repos alone.

    check_release(access, "local/nano", work) -> 214 claims: 209 same, 0 differ, 5 not checked

Nothing of the run that made it is needed, and nothing that is downloaded is executed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubkit.errors import HubkitError
from hubkit.hub import Access
from hubkit.release.check.cards import check_cards
from hubkit.release.check.claims import Claim, Claims
from hubkit.release.check.lineage import check_commits, check_files, check_records
from hubkit.release.check.outputs import check_outputs
from hubkit.release.check.published import Published, fetch
from hubkit.release.check.rerun import check_again
from hubkit.release.check.traces import check_contamination, check_traces

__all__ = ["Claim", "Claims", "check_release"]


def check_release(
    access: Access,
    name: str,
    work: Path,
    rerun: int = 0,
    device: str = "cpu",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> tuple[Published, Claims]:
    """Check the release `name` (org/recipe). `rerun` problems are answered again by each student.

    Raises HubkitErrors only if there is no release to check; if published data stops a stage, that is a claim that
    differs.
    """
    claims = Claims()
    on_stage("repos and records")
    release = fetch(access, name, work)
    stages: list[tuple[str, Callable[[], object]]] = [
        ("commits", lambda: check_commits(release, claims)),
        ("records", lambda: check_records(release, claims)),
        ("files", lambda: check_files(release, claims)),
        ("traces", lambda: check_traces(release, claims)),
        ("contamination", lambda: check_contamination(release, claims)),
        ("outputs", lambda: check_outputs(release, claims)),
        ("cards", lambda: check_cards(release, claims)),
    ]
    if rerun:
        stages.append(("answers", lambda: check_again(release, claims, rerun, device)))
    for stage, carry_out in stages:
        on_stage(stage)
        try:
            carry_out()
        except Exception as error:
            # Published data may have another form than it claims, and make any reader fail: that is a finding, not a
            # # failure of the check.
            line = error.message if isinstance(error, HubkitError) else f"{type(error).__name__}: {error}"
            claims.wrong(name, stage, "a release that can be read", line)
    return release, claims
