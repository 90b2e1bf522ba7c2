"""python -m hubkit.localhub FOLDER: the server's process. `hubkit hub serve` and LocalHub start it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hubkit.errors import HubError
from hubkit.localhub.server import serve

__all__ = ["main"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hubkit.localhub", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--namespace", default="local")
    parser.add_argument("--require-token", action="store_true", help="refuse requests without a known token")
    parser.add_argument("--jobs", action="store_true", help="run jobs as processes on this machine")
    parser.add_argument("--while-used", action="store_true", help="end when no LocalHub uses the folder")
    arguments = parser.parse_args()
    try:
        serve(**vars(arguments))
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
