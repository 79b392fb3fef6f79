"""The Lua scripts, read once, and calls of them. Redis knows a script by the hash of its text: its version."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import hiredis

from quota_redis.errors import Garbled

T_co = TypeVar("T_co", covariant=True)
Value: TypeAlias = str | int
Reply: TypeAlias = Any

NAMES = (
    "absorb",
    "consume",
    "define",
    "load",
    "reserve",
    "settle",
    "snapshot",
    "snapshots",
    "unmark",
)

NONSENSE = (ValueError, TypeError, LookupError, AttributeError)
"""What reading a reply raises that none of our scripts gave."""

_INCLUDE = re.compile(r"^ *-- include: (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script with its includes, as it is sent."""

    name: str
    text: str
    sha: str


class Call(NamedTuple, Generic[T_co]):
    """One call of a script; `read` makes the result of its reply."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Value]
    read: Callable[[Reply], T_co]
    subject: str = ""
    packed: bytes = b""
    """What by_hash gives, where it was made before."""

    def by_hash(self) -> bytes:
        """The command as it is sent to a server that knows the script."""
        return self.packed or self._packed("EVALSHA", self.script.sha)

    def by_text(self) -> bytes:
        """The command as it is sent to a server that has forgotten the script."""
        return self._packed("EVAL", self.script.text)

    def answer(self, reply: Reply) -> T_co:
        """The result of a reply. Raises Garbled for one that no script of ours gives."""
        try:
            return self.read(reply)
        except NONSENSE as error:
            raise Garbled(
                f"Redis has something of {self.subject!r} that no script wrote: {str(reply)[:100]!r}. "
                "Rebuild the subject."
            ) from error

    def _packed(self, command: str, body: str) -> bytes:
        return pack(command, body, len(self.keys), *self.keys, *self.args)


def pack(*values: Value) -> bytes:
    """A command as it travels."""
    return hiredis.pack_command(values)  # type: ignore[arg-type,no-any-return]


def bulk(value: Value) -> bytes:
    """One value of a command as it travels."""
    encoded = str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(encoded), encoded)


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
