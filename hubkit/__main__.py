"""`python -m hubkit` is the same as `hubkit`."""

from __future__ import annotations

from hubkit.cli import main

if __name__ == "__main__":  # workers are spawned and import this module again
    main()
