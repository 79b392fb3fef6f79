"""Where the time of a call goes: scripts that end early, and clients that do less."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import redis

from quota_redis import Counters, scripts
from quota_redis.scripts import Call, Reply
from shargain.demo.bench import Bench, Case, Result, Table, paragraphs
from shargain.demo.bench.commands import AMOUNT, REMEMBER
from shargain.demo.bench.redis_tools import Load, RawSocket, counters, pack, quota
from shargain.demo.bench.rounds import interleaved, middle, spread
from shargain.demo.bench.subjects import define_all, names

SUBJECTS = 1000
CLIENT_CALLS = 3000
BY_DRIVER = "the same script by redis-py"

STEPS: Mapping[str, Sequence[tuple[str, str]]] = {
    "consume": (
        ("EVALSHA, nine values read and checked", "local document ="),
        ("HGET: the definitions", "if remember_ms > 0 then\n  local kept"),
        ("GET: an answer to the same key", "local time = redis.call('TIME')"),
        ("TIME, and which quota rules", "local state = redis.call('HGET'"),
        ("HGET: the state, and its seven parts", "local wanted = amount"),
        ("slots off the free list, the state as text", "redis.call('HSET', subject_key, 'q'"),
        ("HSET: the state", "redis.call('SADD'"),
        ("SADD: the change mark", "local granted = string.format"),
        ("SET: the answer to this key", "return 'GRANTED:' .. granted"),
        ("the answer", ""),
    ),
    "reserve": (
        ("EVALSHA, ten values read and checked", "local found ="),
        ("HMGET: the definitions, and a hold of the same id", "local time = redis.call('TIME')"),
        ("TIME, and which quota rules", "local state = redis.call('HGET'"),
        ("HGET: the state, and its seven parts", "local wanted, count ="),
        (
            "slots off the free list, state and hold as text",
            "redis.call('HSET', subject_key, 'q'",
        ),
        ("HSET: the state and a new hold", "redis.call('SADD'"),
        ("SADD: the change mark", "return string.format(ANSWER, 'SLOTS'"),
        ("the answer", ""),
    ),
    "settle": (
        ("EVALSHA, five values read and checked", "local hold = redis.call('HGET'"),
        ("HGET: the hold", "redis.call('HDEL'"),
        ("HDEL: the hold", "local quota, kept ="),
        ("HGET: the state, and its five parts", "local first, last ="),
        ("the state as text", "redis.call('HSET'"),
        ("HSET: the state", ""),
    ),
}
"""For each script its steps, in order: what is done, and the text before which it is done with."""

NOTES = paragraphs(
    f"""
Scripts: each is ended after every of its steps in turn; a step costs what its end costs more than the end
before. CPU of the server's main thread over {SUBJECTS:,} calls of as many subjects, a hundred at a time;
consume with a key, reserve of {AMOUNT} slots, settle of a hold that is used whole.

Clients: the CPU of this process for a call, socket and all, from the barest to what is offered.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("steps", "Where the time of a call goes", run, is_quick=False),)


def run(bench: Bench) -> Result:
    valkey = bench.valkey()
    mine = counters(valkey.url)
    client = redis.Redis.from_url(valkey.url)
    tables = []
    with bench.on_one_core(valkey.pid):
        for name in STEPS:
            bench.say(f"{name} ...")
            turns = _server_turns(name, mine, client, Load(valkey.url))
            found = interleaved(turns, bench.rounds)
            tables.append(_table(f"Server: {name}", "step", found))
        bench.say("clients ...")
        found = interleaved(_client_turns(valkey.url, mine), bench.rounds)
    tables.append(_table("Client: consume", "what is done", found))
    return Result(tables=tables, notes=NOTES)


def _server_turns(
    name: str, mine: Counters, client: "redis.Redis", load: Load
) -> dict[str, Callable[[], float]]:
    subjects, ids = names(SUBJECTS), count()

    def turn(sha: str) -> float:
        client.flushdb()
        define_all(mine, subjects, [quota()])
        calls = [_call(mine, name, subject, f"{next(ids)}") for subject in subjects]
        if name == "settle":
            held = [mine.calls.reserve(call.subject, AMOUNT, str(call.args[0])) for call in calls]
            mine.connection.send_many(held)
        packed = [pack("EVALSHA", sha, len(call.keys), *call.keys, *call.args) for call in calls]
        return load.cpu_us(packed) / len(packed)

    text, cut = scripts.load(name).text, {}
    for step, mark in STEPS[name]:
        at = text.rindex(mark) if mark else len(text)
        cut[step] = f"{text[:at]}\ndo return 1 end\n{text[at:]}" if mark else text
    return {step: partial(turn, load.load_script(body)) for step, body in cut.items()}


def _call(mine: Counters, name: str, subject: str, id_: str) -> "Call[Any]":
    if name == "consume":
        return mine.calls.consume(subject, 1, id_, REMEMBER)
    if name == "reserve":
        return mine.calls.reserve(subject, AMOUNT, id_)
    return mine.calls.give_back(subject, id_, ())


def _client_turns(url: str, mine: Counters) -> dict[str, Callable[[], float]]:
    subject, ids = "target:0", count()
    mine.define(subject, quota())
    call = mine.calls.consume(subject, 1, None, REMEMBER)
    bare = call._replace(read=_as_it_is)
    raw, client = RawSocket(url), redis.Redis.from_url(url)
    packed, keys, args = call.by_hash(), call.keys, call.args
    sha = call.script.sha
    does: dict[str, Callable[[], object]] = {
        "a socket and hiredis": lambda: raw.call(packed),
        "and timeouts, reconnects, a breaker, threads": lambda: mine.connection.send(bare),
        "and the answer as Granted and Usage": lambda: mine.connection.send(call),
        "consume: and what was FULL a moment ago": lambda: mine.consume(subject),
        "consume with a key": lambda: mine.consume(subject, key=f"{next(ids)}"),
        BY_DRIVER: lambda: client.evalsha(sha, len(keys), *keys, *args),
    }
    return {name: partial(_cpu_us, each) for name, each in does.items()}


def _as_it_is(reply: Reply) -> Any:
    return reply


def _cpu_us(call: Callable[[], object]) -> float:
    before = time.process_time()
    for _ in range(CLIENT_CALLS):
        call()
    return (time.process_time() - before) / CLIENT_CALLS * 1e6


def _table(title: str, first: str, found: Mapping[str, Sequence[float]]) -> Table:
    rows, before = [], 0.0
    for name, values in found.items():
        so_far = middle(values)
        # Nothing of it comes on top of what stands before it.
        cost = None if name == BY_DRIVER else round(so_far - before, 2)
        rows.append([name, cost, so_far, spread(values)])
        before = so_far
    return Table(title, [first, "costs, us", "so far, us", "from-to"], rows)
