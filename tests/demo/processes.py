"""Looks at processes from the outside, independently of the code under test."""

import time
from pathlib import Path

WAIT_SECONDS = 20.0


def started(pid: int) -> str | None:
    """When the process began, in ticks, which tells it from a later one with the same pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def tree(root: int) -> dict[int, str]:
    """All living descendants of a process, and when each began."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := entry / "stat").exists():
            try:
                parents[int(entry.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    family = [root]
    for member in family:
        family += [pid for pid, parent in parents.items() if parent == member]
    return {pid: began for pid in family[1:] if (began := started(pid)) is not None}


def survivors(family: dict[int, str]) -> list[int]:
    """The members that are still there once all had time to go."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        left = [pid for pid, began in family.items() if started(pid) == began]
        if not left:
            return []
        time.sleep(0.05)
    return left
