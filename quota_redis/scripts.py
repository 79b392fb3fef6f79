"""The Lua scripts, read once. Redis knows a script by the hash of its text: that is its version."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

NAMES = ("absorb", "consume", "define", "reserve", "settle", "snapshot", "unmark")

_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script with its includes, as it is sent."""

    name: str
    text: str
    sha: str


def folder() -> Traversable:
    """Where the Lua is: inside an installed package, or in `scripts/lua` of a checkout."""
    installed = files("quota_redis") / "lua"
    if installed.is_dir():
        return installed
    return Path(__file__).resolve().parent.parent / "scripts" / "lua"


@lru_cache(maxsize=len(NAMES))
def load(name: str) -> Script:
    """Read a script by its name, one of NAMES."""
    source = folder()

    def included(match: re.Match[str]) -> str:
        return (source / "include" / f"{match[1]}.lua").read_text(encoding="utf-8")

    text = _INCLUDE.sub(included, (source / f"{name}.lua").read_text(encoding="utf-8"))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
