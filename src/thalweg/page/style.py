"""How methods look: colour, dash and marker, so that colour is never the only signal.

Colours are those of Okabe and Ito (2008), distinguishable with every common colour blindness; in
dark mode the dark ones are lightened, in light mode yellow is darkened, to keep contrast.
"""

from __future__ import annotations

COLOURS = (
    ("#0072b2", "#4aa8e8"),
    ("#d55e00", "#f07f2e"),
    ("#009e73", "#1fc297"),
    ("#b8568f", "#e08fbf"),
    ("#c98600", "#f0b429"),
    ("#33383f", "#d5d9df"),
    ("#4a9ccc", "#8fd0f7"),
    ("#8a8000", "#f0e442"),
)
DASHES = (
    ("solid", ""),
    ("8px,3px", "8 3"),
    ("2.5px,2.5px", "2.5 2.5"),
    ("9px,3px,2px,3px", "9 3 2 3"),
    ("14px,4px", "14 4"),
    ("5px,2px", "5 2"),
)
MARKERS = (
    ("circle", "M17 2.5a3.5 3.5 0 1 0 .01 0z"),
    ("square", "M13.7 2.7h6.6v6.6h-6.6z"),
    ("diamond", "M17 1.5l4.5 4.5l-4.5 4.5l-4.5-4.5z"),
    ("triangle-up", "M17 1.6l4.4 7.6h-8.8z"),
    ("pentagon", "M17 1.6l4.3 3.1l-1.6 5h-5.4l-1.6-5z"),
    ("star", "M17 .8l1.5 3.4l3.7.4l-2.8 2.5l.8 3.7l-3.2-1.9l-3.2 1.9l.8-3.7l-2.8-2.5l3.7-.4z"),
    ("hexagon", "M13.4 4l3.6-2.1l3.6 2.1v4l-3.6 2.1l-3.6-2.1z"),
    ("triangle-down", "M17 10.4l4.4-7.6h-8.8z"),
)


def colour(index: int) -> int:
    """Position of the method's colour; after eight methods colours repeat with other dashes."""
    return index % len(COLOURS)


def dash(index: int) -> str:
    """The method's dash as SVG writes it."""
    return DASHES[index % len(DASHES)][1]


def marker(index: int) -> str:
    """The method's marker as an SVG path in a 34 x 12 box."""
    return MARKERS[index % len(MARKERS)][1]


def variables(theme: int) -> str:
    """The colours as CSS variables, for the light (0) or the dark (1) page."""
    return "".join(f"--m{i}:{pair[theme]};" for i, pair in enumerate(COLOURS))


def looks() -> dict[str, list[str]]:
    """The same looks for plotly."""
    return {
        "light": [pair[0] for pair in COLOURS],
        "dark": [pair[1] for pair in COLOURS],
        "dashes": [pair[0] for pair in DASHES],
        "markers": [pair[0] for pair in MARKERS],
    }
