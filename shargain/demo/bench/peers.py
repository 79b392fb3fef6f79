"""Counters that others wrote, and those that people write themselves, behind one face.

A peer is made for one subject with a limit, and asked for units: True where they may be used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias
from uuid import uuid4

import redis

from quota_redis import Granted
from shargain.demo.bench.redis_tools import BARE, RawSocket, counters, pack, quota

Ask: TypeAlias = Callable[[int], bool]
Make: TypeAlias = Callable[[str, str, int], Ask]
"""From the server's address, a subject and its limit to what is asked."""

DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class Peer:
    """What is measured. note: what it does not do that consume does, or that others should know."""

    name: str
    make: Make
    note: str = ""


def _ours(url: str, subject: str, limit: int) -> Ask:
    mine = counters(url)
    mine.define(subject, quota(limit))
    keys = (f"request-{number}" for number in count())

    def ask(amount: int) -> bool:
        return type(mine.consume(subject, amount, key=next(keys))) is Granted

    return ask


def _ours_without_key(url: str, subject: str, limit: int) -> Ask:
    mine = counters(url)
    mine.define(subject, quota(limit))

    def ask(amount: int) -> bool:
        return type(mine.consume(subject, amount)) is Granted

    return ask


def _limits(url: str, subject: str, limit: int) -> Ask:
    from limits import RateLimitItemPerDay
    from limits.storage import RedisStorage
    from limits.strategies import FixedWindowRateLimiter

    limiter = FixedWindowRateLimiter(RedisStorage(url))
    item = RateLimitItemPerDay(limit)

    def ask(amount: int) -> bool:
        return limiter.hit(item, subject, cost=amount)

    return ask


def _throttled(url: str, subject: str, limit: int) -> Ask:
    from datetime import timedelta

    from throttled import Throttled, rate_limiter, store

    throttle = Throttled(
        key=subject,
        using="fixed_window",
        quota=rate_limiter.per_duration(timedelta(days=1), limit),
        store=store.RedisStore(server=url),
    )

    def ask(amount: int) -> bool:
        return not throttle.limit(cost=amount).limited

    return ask


def _pyrate(url: str, subject: str, limit: int) -> Ask:
    from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

    bucket = RedisBucket.init([Rate(limit, Duration.DAY)], redis.Redis.from_url(url), subject)
    limiter = Limiter(bucket)

    def ask(amount: int) -> bool:
        return bool(limiter.try_acquire(subject, amount, blocking=False))

    return ask


def _django_ratelimit(url: str, subject: str, limit: int) -> Ask:
    _configure_django(url)
    from django.http import HttpRequest
    from django_ratelimit.core import is_ratelimited

    request = HttpRequest()
    request.method = "POST"
    rate = f"{limit}/d"

    def whose(_group: str, _request: HttpRequest) -> str:
        return subject

    def ask(amount: int) -> bool:
        # It counts requests: several units are several requests.
        asked = [
            is_ratelimited(request, group="bench", key=whose, rate=rate, increment=True)
            for _ in range(amount)
        ]
        return not any(asked)

    return ask


def _django_redis(url: str, subject: str, limit: int) -> Ask:
    _configure_django(url)
    from django.core.cache import cache

    cache.add(subject, 0, timeout=DAY)

    def ask(amount: int) -> bool:
        return cache.incr(subject, amount) <= limit

    return ask


def _script(url: str, subject: str, limit: int) -> Ask:
    client = redis.Redis.from_url(url)
    sha = client.script_load(BARE)

    def ask(amount: int) -> bool:
        return client.evalsha(sha, 1, subject, amount, limit) == 1

    return ask


def _get_then_incr(url: str, subject: str, limit: int) -> Ask:
    client = redis.Redis.from_url(url)

    def ask(amount: int) -> bool:
        used: Any = client.get(subject) or 0
        if int(used) + amount > limit:
            return False
        client.incrby(subject, amount)
        return True

    return ask


def _raw_socket(url: str, subject: str, limit: int) -> Ask:
    raw = RawSocket(url)
    sha: Any = raw.call(pack("SCRIPT", "LOAD", BARE))
    by_amount = {n: pack("EVALSHA", sha, 1, subject, n, limit) for n in range(1, 11)}

    def ask(amount: int) -> bool:
        return raw.call(by_amount[amount]) == 1

    return ask


def _configure_django(url: str) -> None:
    from django.conf import settings

    if not settings.configured:
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
        settings.configure(CACHES={"default": cache}, SECRET_KEY=uuid4().hex)


OURS = Peer("consume", _ours)
WITHOUT_KEY = Peer("consume, no key", _ours_without_key)
LIMITS = Peer("limits FixedWindow", _limits, "charges refusals")
BARE_SCRIPT = Peer("bare script by redis-py", _script)
FLOOR = Peer(
    "bare script, raw socket", _raw_socket, "one thread, no reconnect, no errors: the floor"
)
PEERS = (
    OURS,
    WITHOUT_KEY,
    LIMITS,
    Peer("throttled-py fixed window", _throttled, "charges refusals"),
    Peer("pyrate-limiter RedisBucket", _pyrate, "sliding log: an entry for every unit"),
    Peer("django-ratelimit", _django_ratelimit, "charges refusals; one unit a call"),
    Peer("django-redis incr", _django_redis, "charges refusals"),
    BARE_SCRIPT,
    Peer("redis-py GET, then INCRBY", _get_then_incr, "over-admits"),
    FLOOR,
)
