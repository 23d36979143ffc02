"""``python -m thalweg.cli``: the command line without the installed script."""

from __future__ import annotations

from thalweg.cli import main

if __name__ == "__main__":
    main()
