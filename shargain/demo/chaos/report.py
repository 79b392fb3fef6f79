"""Writes what a run found: as text for the terminal, as Markdown with JSON beside it to be kept."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TITLES = {"run": "Faults at random", "outages": "What outages cost"}
INTRODUCTION = """# Faults on real processes

Written by `scripts/chaos`. Real web, Celery workers, beats and clients on real servers; the judge works from the
journals that the clients keep of every answer, and from the order of PostgreSQL's commits, before any repair.
"""


def as_text(report: Mapping[str, Any], indent: str = "") -> str:
    """The report for a terminal; ends with the verdict."""
    lines = list(_lines(report, indent))
    if not indent:
        wrong = report.get("violations_in_all", len(report["violations"]))
        lines.append(f"VERDICT {f'{wrong} violations' if wrong else 'exact'}")
    return "\n".join(lines)


def _lines(report: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in report.items():
        shown = str(name).replace("_", " ")
        if isinstance(value, Mapping):
            yield f"{indent}{shown}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{shown}: {len(value)}"
            yield from (f"{indent}  {each}" for each in value)
        else:
            yield (
                f"{indent}{shown}: {value:,}"
                if isinstance(value, int)
                else f"{indent}{shown}: {value}"
            )


def keep(file: Path, section: str, report: Mapping[str, Any]) -> None:
    """Write the report as a section of a document, whose other sections stay."""
    data = file.with_suffix(".json")
    sections = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
    sections[section] = report
    data.write_text(json.dumps(sections, indent=1) + "\n", encoding="utf-8")
    parts = [INTRODUCTION]
    parts += [_section(TITLES[name], sections[name]) for name in TITLES if name in sections]
    file.write_text("\n".join(parts), encoding="utf-8")


def _section(title: str, report: Mapping[str, Any]) -> str:
    lines = [f"## {title}", ""]
    single = {n: v for n, v in report.items() if not isinstance(v, Mapping | list)}
    lines += _table("", single)
    for name, value in report.items():
        if isinstance(value, Mapping) and value:
            lines += _table(str(name).replace("_", " "), value)
        elif isinstance(value, list):
            shown = str(name).replace("_", " ")
            lines += [f"### {shown}", "", *([f"- {each}" for each in value] or ["None."]), ""]
    return "\n".join(lines)


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    lines = [f"### {title}", ""] if title else []
    lines += ["| what | |", "|---|---:|"]
    for name, value in _flat(values):
        shown = f"{value:,}" if isinstance(value, int) else value
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return [*lines, ""]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", value
