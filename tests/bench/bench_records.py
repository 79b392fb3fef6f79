"""Records as a run would make them."""

from typing import Any

from shargain.demo.bench import Bar, Bench, Case, Result

BAR = Bar("ours against theirs", "ours over theirs", at_least=1.5, aim=2)


def _never(_bench: Bench) -> Result:
    raise AssertionError("nothing is to be measured here")


CASES = {"duel": Case("duel", "Ours against theirs", _never, (BAR,))}


def figure(median: float, **more: Any) -> dict[str, Any]:
    """A figure as plain values: a ratio of which more is better, unless said otherwise."""
    values = {
        "low": median * 0.9,
        "high": median * 1.1,
        "unit": "x",
        "better": "higher",
        "slack": 0.2,
    }
    return {"median": median, **values, **more}


def record(mode: str = "full", **figures: dict[str, Any]) -> dict[str, Any]:
    """A record of one case, `duel`; in names of figures '_' stands for a space."""
    found = {
        "figures": {name.replace("_", " "): value for name, value in figures.items()},
        "tables": [
            {
                "title": "Speeds",
                "columns": ["", "calls/s"],
                "rows": [["a|b", 12_345], ["theirs", 2.5]],
            }
        ],
        "curves": [],
        "notes": ["Theirs charges refusals."],
        "mode": mode,
        "seconds": 12.3,
        "day": "2026-01-02",
    }
    return {"machine": {"cores": "2"}, "versions": {"Python": "3"}, "cases": {"duel": found}}
