"""Writes what a record says: as text for a terminal, as Markdown for docs/benchmarks.md."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from shargain.demo.bench import Bar, Case
from shargain.demo.bench.record import Record, verdicts

IMAGES = "images"


def markdown(cases: Mapping[str, Case], record: Record) -> str:
    """The whole document."""
    template = Template((files(__package__) / "benchmarks.md.template").read_text(encoding="utf-8"))
    return template.substitute(
        machine=_listed(record["machine"]),
        versions=", ".join(f"{name} {value}" for name, value in record["versions"].items()),
        bars=_table(BAR_COLUMNS, [bar_row(*each) for each in verdicts(cases, record)]),
        cases="\n\n".join(
            _case(cases[name], record["cases"][name]) for name in cases if name in record["cases"]
        ),
    )


def terminal(cases: Mapping[str, Case], record: Record) -> str:
    """The tables of all cases and the bars, for a terminal."""
    parts = []
    for name, found in record["cases"].items():
        parts.append(f"\n{cases[name].title} ({found['mode']}, {found['seconds']:.0f} s)")
        for table in found["tables"]:
            parts += [table["title"]] if table["title"] else []
            parts.append(_aligned(table["columns"], table["rows"]))
        parts.append(_aligned(["figure", "median", "from-to"], list(_figures(found))))
    bars = [bar_row(*each) for each in verdicts(cases, record)]
    if bars:
        parts.append(f"\nBars\n{_aligned(BAR_COLUMNS, bars)}")
    return "\n".join(parts)


BAR_COLUMNS = ("what", "bar", "measured", "from-to", "")


def bar_row(bar: Bar, figure: Mapping[str, Any], verdict: str) -> list[str]:
    unit = figure["unit"]
    wanted = f">= {shown(bar.at_least)}" if bar.at_least is not None else f"<= {shown(bar.at_most)}"
    aim = f", aim {shown(bar.aim)}" if bar.aim is not None else ""
    return [
        bar.what,
        f"{wanted}{aim} {unit}",
        f"{shown(figure['median'])} {unit}",
        f"{shown(figure['low'])}-{shown(figure['high'])}",
        verdict,
    ]


def shown(value: object) -> str:
    """A cell as it is read."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) or abs(value) < 1000 else f"{value:,.0f}"


def _figures(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, figure in found["figures"].items():
        low, high = shown(figure["low"]), shown(figure["high"])
        yield [name, f"{shown(figure['median'])} {figure['unit']}", f"{low}-{high}"]


def _case(case: Case, found: Mapping[str, Any]) -> str:
    parts = [f"## {case.title}", *found["notes"]]
    for table in found["tables"]:
        heading = [f"### {table['title']}"] if table["title"] else []
        parts += [*heading, _table(table["columns"], table["rows"])]
    for curve in found["curves"]:
        parts.append(f"![{curve['title']}]({IMAGES}/bench-{curve['name']}.svg)")
    if not found["tables"]:
        parts.append(_table(("", "median", "from-to"), list(_figures(found))))
    parts.append(
        f"`scripts/bench {found['mode']} --only {case.name}`, {found['day']}, {found['seconds']:.0f} s."
    )
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(shown(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    marks = [_mark([row[at] for row in rows]) for at in range(len(columns))]
    return "\n".join([line(columns), line(marks), *map(line, rows)])


def _mark(cells: Sequence[object]) -> str:
    is_number = all(isinstance(cell, int | float) or cell is None for cell in cells)
    return "---:" if is_number else "---"


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [list(columns), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "\n".join(f"  {line}" for line in lines)


def _listed(values: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())
