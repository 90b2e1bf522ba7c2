"""A Hub on this machine: the Hub's HTTP API over a folder, for releases without an account.

    with LocalHub(Path("runs/hub")) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("local/nano-traces", repo_type="dataset")

    storage/    the folder: contents, repos, commits, accounts     imports neither of the others
    api/        the Hub's HTTP API                                 imports storage
    pages/      what a browser shows                               imports storage and api
    server.py   the server's process; app.py has its routes; start.py starts or joins it

Other code of hubkit imports this module only, and the local Hub imports nothing of hubkit but `hubkit.errors`.
"""

from __future__ import annotations

from hubkit.localhub.start import LocalHub
from hubkit.localhub.storage.maintenance import Freed, Report, fsck, gc, make_member, make_token

__all__ = ["Freed", "LocalHub", "Report", "fsck", "gc", "make_member", "make_token"]
