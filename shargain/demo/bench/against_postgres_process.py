"""One of the processes of `against_postgres`: uses units as it is told through a pipe."""

import random
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import psycopg

from quota_redis import Granted
from shargain.demo.bench.redis_tools import counters

OURS = "consume"
NO_KEY = "consume, no key"
IN_MEMORY = "consume, Valkey in memory"
UPDATES = ("UPDATE by psycopg", "UPDATE by Django, F()")
CHUNK = 10
"""Calls between two looks at the clock."""

Ask: TypeAlias = Callable[[int], bool]
"""One unit of the row or subject with this number; whether it was granted."""


class Places(NamedTuple):
    """Where the servers are."""

    valkey: str
    in_memory: str
    postgres: str


def obey(pipe: Connection, places: Places, number: int) -> None:
    """Answer orders (whom to ask, of how many rows, seconds) with calls a second, until the pipe is closed."""
    asks = {
        OURS: _ours(places.valkey, number),
        NO_KEY: _no_key(places.valkey),
        IN_MEMORY: _ours(places.in_memory, number),
        UPDATES[0]: _by_psycopg(places.postgres),
        UPDATES[1]: _by_django(places.postgres),
    }
    drawn = random.Random(number)  # noqa: S311  no secret, only the same again
    while True:
        try:
            name, rows, seconds = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send(_rate(asks[name], drawn, rows, seconds))


def _rate(ask: Ask, drawn: random.Random, rows: int, seconds: float) -> float:
    calls, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(CHUNK):
            if not ask(drawn.randrange(rows)):
                raise RuntimeError("a unit was refused although the limit is far.")
        calls += CHUNK
    return calls / took


def _ours(url: str, process: int) -> Ask:
    mine, ids = counters(url), count()

    def ask(row: int) -> bool:
        answer = mine.consume(f"target:{row}", key=f"{process}-{next(ids)}")
        return type(answer) is Granted

    return ask


def _no_key(url: str) -> Ask:
    mine = counters(url)
    return lambda row: type(mine.consume(f"target:{row}")) is Granted


def _by_psycopg(url: str) -> Ask:
    connection = psycopg.connect(url, autocommit=True)
    query = "UPDATE bench_quota SET used = used + 1 WHERE id = %s AND used < quota_limit"

    def ask(row: int) -> bool:
        return connection.execute(query, (row,)).rowcount == 1

    return ask


def _by_django(url: str) -> Ask:
    rows: Any = _django_model(url).objects
    from django.db.models import F

    def ask(row: int) -> bool:
        found = rows.filter(pk=row, used__lt=F("quota_limit"))
        return bool(found.update(used=F("used") + 1) == 1)

    return ask


def _django_model(url: str) -> Any:
    """The table as a model, with no more of Django than that takes."""
    import django
    from django.conf import settings

    parts = urlsplit(url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.hostname,
        "PORT": parts.port,
    }
    settings.configure(DATABASES={"default": database}, USE_TZ=True)
    django.setup()
    from django.db import models

    class BenchQuota(models.Model):
        id = models.BigIntegerField(primary_key=True)
        used = models.BigIntegerField()
        quota_limit = models.BigIntegerField()

        class Meta:
            app_label = "bench"
            db_table = "bench_quota"
            managed = False

    return BenchQuota
