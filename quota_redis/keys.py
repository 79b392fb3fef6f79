"""Every Redis key, built in one place.

    q1:{NAMESPACE:SHARD}s:SUBJECT        hash: definitions, free lists, holds (scripts/lua/include/state.lua)
    q1:{NAMESPACE:SHARD}c                set: subjects whose counts sync has to write
    q1:{NAMESPACE:SHARD}k:SUBJECT:KEY    string with expiry: the answer to an idempotency key
    q1:{NAMESPACE:SHARD}a:SUBJECT        string with expiry: an absorb of the subject ran a moment ago

`1` is the version of this layout. SHARD is CRC-32 of the subject modulo the number of shards; the braces keep
what one script touches on one node of a cluster.
"""

import re
from binascii import crc32
from dataclasses import dataclass
from functools import lru_cache

from quota_redis.errors import InvalidArgument

LAYOUT = 1
SHARDS = 16
MAX_SUBJECT_BYTES = 200

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,32}")


def encode_text(name: str, text: str) -> bytes:
    """Return the UTF-8 bytes of a subject or key; raise InvalidArgument where it is empty, too long or has NUL."""
    try:
        encoded = text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidArgument(f"{name} is {text!r}: give a string of valid text.") from None
    if not 1 <= len(encoded) <= MAX_SUBJECT_BYTES or b"\0" in encoded:
        raise InvalidArgument(
            f"{name} is {text[:60]!r} with {len(encoded)} bytes: "
            f"give 1 to {MAX_SUBJECT_BYTES} bytes without NUL."
        )
    return encoded


check_text = lru_cache(maxsize=4096)(encode_text)
"""The same, remembered: for subjects, which come again and again."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace. Raises InvalidArgument for a namespace that would not make good keys."""

    namespace: str
    shards: int = SHARDS

    def __post_init__(self) -> None:
        if not isinstance(self.namespace, str) or not _NAMESPACE.fullmatch(self.namespace):
            raise InvalidArgument(
                f"namespace is {self.namespace!r}: give 1 to 32 of letters, digits, '_', '.' and '-'."
            )

    def shard(self, subject: str) -> int:
        return crc32(check_text("subject", subject)) % self.shards

    def subject(self, subject: str) -> str:
        return f"{self._prefix(self.shard(subject))}s:{subject}"

    def changed(self, subject: str) -> str:
        return self.changed_of(self.shard(subject))

    def changed_of(self, shard: int) -> str:
        return f"{self._prefix(shard)}c"

    def answer(self, subject: str, key: str) -> str:
        return f"{self.answers(subject)}{key}"

    def answers(self, subject: str) -> str:
        """What the keys of all answers of a subject begin with."""
        return f"{self._prefix(self.shard(subject))}k:{subject}:"

    def absorbing(self, subject: str) -> str:
        return f"{self._prefix(self.shard(subject))}a:{subject}"

    def _prefix(self, shard: int) -> str:
        return f"q{LAYOUT}:{{{self.namespace}:{shard}}}"
