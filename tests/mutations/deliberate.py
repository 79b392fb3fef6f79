"""Mistakes that somebody could make: each breaks a promise and must be caught, or is judged as safe."""

from tests.mutations.mutant import Mistake, Mutant

LEDGER_SQL = "quota_redis/postgres/sql/v1.sql"
RECORD_SQL = "quota_redis/postgres/sql/v2.sql"
TAKE_SQL = "quota_redis/postgres/sql/v3.sql"
OFFERS_SQL = "shargain/offers/sql/create_offers_v2.sql"
LUA = "scripts/lua/"
PYTHON = "quota_redis/"


def all_deliberate() -> list[Mutant]:
    return [mistake.mutant() for mistake in MISTAKES]


def ledger(name: str, why: str, *changes: tuple[str, str]) -> Mistake:
    return Mistake(LEDGER_SQL, name, why, changes)


def offers(name: str, why: str, *changes: tuple[str, str]) -> Mistake:
    return Mistake(OFFERS_SQL, name, why, changes)


def script(file: str, name: str, why: str, *changes: tuple[str, str]) -> Mistake:
    return Mistake(f"{LUA}{file}.lua", name, why, changes)


def python(file: str, name: str, why: str, *changes: tuple[str, str]) -> Mistake:
    return Mistake(f"{PYTHON}{file}.py", name, why, changes)


IN_LEDGER = (
    ledger(
        "the ledger has no exclusion constraint",
        "a slot is used once",
        (
            """),
    CONSTRAINT quota_redis_ledger_slot_once
        EXCLUDE USING gist (quota_id WITH =, slots WITH &&, namespace WITH =)
""",
            ")\n",
        ),
    ),
    ledger(
        "a taken slot is no error",
        "what could not be recorded is rolled back",
        (
            "IF NOT FOUND THEN\n            RAISE EXCEPTION 'a slot",
            "IF false THEN\n            RAISE EXCEPTION 'a slot",
        ),
    ),
    ledger(
        "slots are written by a plain insert",
        "a conflict is told as QS002, and races do not deadlock",
        (
            "lower(v_range) + v_take))\n        ON CONFLICT DO NOTHING;",
            "lower(v_range) + v_take));",
        ),
    ),
    ledger(
        "more units than slots are recorded",
        "the ledger equals what was created",
        ("IF v_left > 0 THEN", "IF false THEN"),
    ),
    ledger(
        "slots of a quota that does not rule are recorded",
        "the quota that rules at the statement is the one that counts",
        ("IF p_active IS DISTINCT FROM p_quota THEN", "IF false THEN"),
    ),
    ledger(
        "lowering a limit compares slot numbers with it",
        "free = max(0, limit - used), wherever the used ones lie",
        ("lo + greatest(0, p_limit - v_used - before)", "lo + greatest(0, p_limit + 1 - lo)"),
        (
            "WHERE hi IS NULL OR p_limit - v_used - before < hi - lo",
            "WHERE hi IS NULL OR p_limit + 1 < hi",
        ),
        ("IF v_room <= greatest(0, p_limit - v_used) THEN", "IF true THEN"),
    ),
    ledger(
        "an edit does not look again after it waited",
        "an edit that meets a transaction under way is exact from its commit on",
        ("IF v_room <= greatest(0, p_limit - v_used) THEN", "IF true THEN"),
    ),
    ledger(
        "void slots are not given back when a limit rises",
        "an offer is discarded only where none is free",
        (
            "IF p_limit IS NULL OR v_room < greatest(0, p_limit - v_used) THEN",
            "IF p_limit IS NULL THEN",
        ),
    ),
    ledger(
        "an unlimited quota keeps its void slots",
        "an offer is discarded only where none is free",
        (
            "IF p_limit IS NULL OR v_room < greatest(0, p_limit - v_used) THEN",
            "IF v_room < greatest(0, p_limit - v_used) THEN",
        ),
    ),
    ledger(
        "an edit has no version",
        "FULL counts only at the version that PostgreSQL has",
        ("    PERFORM quota_redis_bump_v1(TG_ARGV[0], v_subject);\n", ""),
    ),
    ledger(
        "an edit leaves no mark",
        "Redis hears of every edit with the next sync",
        (
            """version = s.version + 1;
    INSERT INTO quota_redis_mark (namespace, subject) VALUES (p_namespace, p_subject);
""",
            "version = s.version + 1;\n",
        ),
    ),
    ledger(
        "a deleted quota still has room",
        "nothing is counted under a quota that is gone",
        ("IF quota_redis_apply_limit_v1(TG_ARGV[0], v_id, 0) > 0 THEN", "IF false THEN"),
    ),
    ledger(
        "the direct road leaves no mark",
        "counts reach the used column",
        (
            """    INSERT INTO quota_redis_mark (namespace, subject) VALUES (p_namespace, p_subject);
    RETURN int8multirange""",
            "    RETURN int8multirange",
        ),
    ),
    ledger(
        "the direct road takes one slot too many",
        "the limit",
        ("greatest(lower(v_gap), upper(v_gap) - p_amount)", "upper(v_gap) - p_amount - 1"),
    ),
    ledger(
        "two namespaces share their slots",
        "namespaces never meet",
        ("quota_id WITH =, slots WITH &&, namespace WITH =", "quota_id WITH =, slots WITH &&"),
    ),
    ledger(
        "compaction swallows the gaps",
        "the ledger equals what was created",
        (
            "SELECT unnest(range_agg(slots)) AS slots FROM gone",
            "SELECT range_merge(range_agg(slots)) AS slots FROM gone",
        ),
    ),
)

IN_RECORD = (
    Mistake(
        RECORD_SQL,
        "a taken slot of one range is no error",
        "what could not be recorded is rolled back",
        (("IF NOT FOUND THEN", "IF false THEN"),),
    ),
    Mistake(
        RECORD_SQL,
        "slots of one range are written by a plain insert",
        "a conflict is told as QS002, and races do not deadlock",
        (("        ON CONFLICT DO NOTHING;", ";"),),
    ),
    Mistake(
        RECORD_SQL,
        "more units than one range has are recorded",
        "the ledger equals what was created",
        (("p_used BETWEEN 1 AND upper(p_slots) - lower(p_slots)", "p_used >= 1"),),
    ),
    Mistake(
        RECORD_SQL,
        "one range of a quota that does not rule is recorded",
        "the quota that rules at the statement is the one that counts",
        (("IF p_active = p_quota AND", "IF"),),
    ),
    Mistake(
        RECORD_SQL,
        "gaps between ranges are recorded",
        "the ledger equals what was created",
        (("       AND p_slots = int8multirange(range_merge(p_slots)) THEN", " THEN"),),
    ),
)

IN_TAKE = (
    Mistake(
        TAKE_SQL,
        "slots taken past Redis leave no mark",
        "counts reach the used column",
        (
            (
                "    INSERT INTO quota_redis_mark (namespace, subject) VALUES (p_namespace, p_subject);\n",
                "",
            ),
        ),
    ),
    Mistake(
        TAKE_SQL,
        "a row within the gap is overlooked",
        "the direct road comes to an end",
        (("slots && int8range(v_end - p_amount, v_end)", "slots @> v_end - 1"),),
    ),
    Mistake(
        TAKE_SQL,
        "a stride back stops where it landed",
        "slots are taken from the top of a gap",
        (("IF v_free + 1 = v_taken THEN", "IF v_free < v_taken THEN"),),
    ),
    Mistake(
        TAKE_SQL,
        "more is taken than the largest gap has",
        "the limit",
        (("greatest(lower(gap), upper(gap) - p_amount)", "upper(gap) - p_amount"),),
    ),
    Mistake(
        TAKE_SQL,
        "a gap beneath strides that missed it is not looked for",
        "an offer is discarded only where none is free",
        (("        ORDER BY upper(gap) - lower(gap) DESC LIMIT 1", "        LIMIT 0"),),
    ),
    Mistake(
        TAKE_SQL,
        "a direct user does not look again after it waited",
        "direct users do not take one another's slots",
        (("FOR v_look IN 1..2 LOOP", "FOR v_look IN 1..1 LOOP"),),
    ),
)

IN_OFFERS = (
    offers(
        "what was asked counts, not what was inserted",
        "the ledger equals the offers created",
        (
            "v_slots,\n                    count(i.url))",
            "v_slots,\n                    least(v_room, jsonb_array_length(p_offers)))",
        ),
    ),
    offers(
        "offers are inserted beyond the slots",
        "the limit",
        ("WHERE batch_id IS NULL ORDER BY n LIMIT v_room", "WHERE batch_id IS NULL ORDER BY n"),
    ),
    offers(
        "offers are inserted without conflict handling",
        "two batches with one address make one offer of it",
        ("        ON CONFLICT (target_id, url) DO NOTHING\n", ""),
    ),
    offers(
        "a batch that comes again answers duplicate for what it made",
        "no accepted offer is lost to what follows its creation",
        (
            "FILTER (WHERE i.url IS NOT NULL OR k.batch_id = p_batch)",
            "FILTER (WHERE i.url IS NOT NULL)",
        ),
    ),
    offers(
        "Redis is believed about which quota rules",
        "one clock decides which quota rules",
        ("IF quota_id IS DISTINCT FROM p_quota THEN", "IF false THEN"),
    ),
)

IN_SCRIPTS = (
    script(
        "include/refusal",
        "FULL without a look at the holds",
        "nothing is discarded while somebody may give back",
        ("if holds > 0 then", "if false then"),
    ),
    script(
        "include/refusal",
        "FULL near a boundary is believed",
        "clocks may differ by the skew",
        ("refusal = 'BOUNDARY'", "refusal = 'FULL'"),
    ),
    script(
        "include/refusal",
        "an expired hold is waited for",
        "a lease ends",
        ("now < earliest * 1000 and 'BUSY' or 'EXPIRED'", "'BUSY'"),
    ),
    script(
        "include/rule",
        "the earliest start rules",
        "the latest start rules",
        ("    break\n", ""),
    ),
    script(
        "include/free",
        "a lowered limit is not looked at",
        "the limit holds from the edit on",
        ("limit == '' and free or math.min(free, limit - (usable - free))", "free"),
    ),
    script(
        "settle",
        "a hold can be settled twice",
        "a slot is free or held, never both",
        ("redis.call('HDEL', subject_key, 'h' .. hold_id)\n", ""),
    ),
    script(
        "settle",
        "settle gives nothing back",
        "what was not used is free again",
        ("if #back == 1 and lo and", "if false and"),
        ("elseif #back > 0 then", "elseif false then"),
    ),
    script(
        "settle",
        "settle believes what comes back",
        "only what the hold has comes back",
        ("subtract(slots, subtract(slots, union(parse(returned))))", "union(parse(returned))"),
    ),
    script(
        "reserve",
        "the lease is ignored: a hold ends as it begins",
        "a worker has its lease to settle",
        ("math.floor(now / 1000) + lease_ms", "math.floor(now / 1000)"),
    ),
    script(
        "reserve",
        "the last reserved slot stays free",
        "a slot is given out once",
        ("lo = last + 1", "lo = last"),
    ),
    script(
        "reserve",
        "a retry does not know its hold id",
        "the same id gives the first answer again",
        ("if hold then return", "if false then return"),
        ("if hold then\n", "if false then\n"),
    ),
    script(
        "reserve",
        "a reservation leaves no mark for sync",
        "counts reach the used column",
        ("redis.call('SADD', changed_key, subject)\nreturn", "return"),
    ),
    script(
        "consume",
        "the idempotency key is ignored",
        "a call with a key counts once",
        ("  if kept then\n", "  if false then\n"),
    ),
    script(
        "consume",
        "a key comes again with another amount",
        "two calls never share a key unnoticed",
        ("if tonumber(kept_amount) ~= amount then", "if false then"),
    ),
    script(
        "consume",
        "consume checks for one unit alone",
        "all or nothing",
        ("if room < amount then", "if room < 1 then"),
    ),
    script(
        "define",
        "a new definition forgets what was used",
        "usage of quotas that stay is kept",
        ("used = usable - state.free - state.held", "used = 0"),
    ),
    script(
        "absorb",
        "absorb forgets live holds",
        "slots under a live hold are not free",
        ("if #left == 0 then", "if true then"),
    ),
    script(
        "absorb",
        "absorb heeds no version",
        "nothing is applied over a later version",
        ("if hash.d and tonumber(string.match(hash.d, '^(%d+)|')) > version then return 0 end", ""),
    ),
    script(
        "absorb",
        "absorb does not see that another came between",
        "what was read is still so when it is applied",
        ("if (hash.a or '') ~= token_seen then return 0 end", ""),
    ),
    script(
        "absorb",
        "absorb gives nothing back",
        "an offer is discarded only where none is free",
        ("back = parse(values[i + 6])", "back = {}"),
    ),
    script(
        "absorb",
        "absorb leaks what an expired hold kept",
        "an offer is discarded only where none is free",
        ("table.insert(quotas[quota].back, range) end", "local _ = range end"),
    ),
    script(
        "absorb",
        "absorb does not look at the ledger",
        "Redis comes in line with the ledger",
        ("subtract(subtract(union(free), quota.taken), held)", "subtract(union(free), held)"),
    ),
    script(
        "load",
        "a hash that came meanwhile is loaded over",
        "live holds stay",
        ("redis.call('EXISTS', subject_keys[i]) == 0", "true"),
    ),
    script(
        "load",
        "what was loaded is not marked",
        "counts reach the used column",
        ("if #loaded > 0 then redis.call('SADD', changed_key, unpack(loaded)) end\n", ""),
    ),
    script(
        "unmark",
        "a mark goes although something changed since",
        "counts reach the used column",
        ("~= seen[first + 1] then return 2 end", "== nil then return 2 end"),
        ("~= seen[first + 2 * i - 1] then return 0 end", "== nil then return 0 end"),
    ),
)

IN_PYTHON = (
    python(
        "postgres/absorb",
        "sync adds",
        "counts are set, never added",
        ("SET {t.used} = w.used", "SET {t.used} = q.{t.used} + w.used"),
    ),
    python(
        "postgres/absorb",
        "absorb reads the ledger first",
        "what is given back was neither free nor held, and is not taken later",
        ("    seen = snapshots(counters, names)\n", ""),
        (
            "        write_last_counts(ledger, connection, seen",
            "        seen = snapshots(counters, names)\n        write_last_counts(ledger, connection, seen",
        ),
    ),
    python(
        "postgres/absorb",
        "an absorb that was overtaken is not done again",
        "Redis comes in line with the ledger",
        ("for attempt in range(ATTEMPTS):", "for attempt in range(1):"),
    ),
    python(
        "postgres/sync",
        "marks go before absorb",
        "a mark goes only after what it stands for has reached Redis",
        (
            "            try:\n                if self._is_up:\n",
            """            with self._connection.transaction():
                ids = [mark for mark, _ in marks]
                self._connection.execute("DELETE FROM quota_redis_mark WHERE id = ANY(%s)", (ids,))
            try:
                if self._is_up:
""",
        ),
    ),
    python(
        "postgres/sync",
        "marks go although absorb was not applied",
        "a mark goes only after what it stands for has reached Redis",
        ("[mark for mark, subject in marks if subject in done]", "[mark for mark, _ in marks]"),
    ),
    python(
        "postgres/sync",
        "a mark goes while something is held",
        "counts reach the used column",
        ("not snapshot.holds and ", ""),
    ),
    python(
        "postgres/sync",
        "a mark goes although a row was locked",
        "counts reach the used column",
        (" and snapshot.quotas.keys() <= done", ""),
    ),
    python(
        "postgres/sync",
        "the count of a quota that left Redis meanwhile is undone",
        "counts equal the ledger after an audit at rest",
        ("        if moved:\n", "        if False:\n"),
    ),
    python(
        "postgres/absorb",
        "what is used is free in a loaded hash",
        "Redis comes in line with the ledger",
        ("ranges.subtract(ranges.EVERYTHING, quota.taken)\n", "ranges.EVERYTHING\n"),
    ),
    python(
        "postgres/sync",
        "two syncs write at once",
        "one sync writes",
        (
            '"pg_advisory_lock" if wait else "pg_try_advisory_lock"',
            '"pg_advisory_lock_shared" if wait else "pg_try_advisory_lock_shared"',
        ),
    ),
    python(
        "postgres/table",
        "in PostgreSQL the earliest start rules",
        "the latest start rules",
        ("ORDER BY {self.start} DESC LIMIT 1", "ORDER BY {self.start} LIMIT 1"),
    ),
    python(
        "postgres/spending",
        "FULL counts at any version (spend)",
        "an edit that Redis has not heard of discards nothing",
        ("return await self._database.ask(asked) == version", "return True"),
    ),
    Mistake(
        "shargain/offers/services/quota.py",
        "FULL counts at any version (offers)",
        "an edit that Redis has not heard of discards nothing",
        (
            (
                "self._batch.read_known(self._connection) == version",
                "self._batch.read_known(self._connection) >= 0",
            ),
        ),
    ),
    python(
        "postgres/spending",
        "units count before their transaction commits",
        "nothing that was rolled back counts",
        (
            """reservation.ranges, used)
        self._count(used, allowed)
""",
            """reservation.ranges, used)
                self._count(used, allowed)
""",
        ),
    ),
    python(
        "postgres/spending",
        "work that did less is asked again",
        "fewer units done means that there is nothing left to do",
        ("self.left = self.left - used if used == allowed else 0", "self.left = self.left - used"),
    ),
    python(
        "postgres/spending",
        "that no quota was active is remembered after PostgreSQL says otherwise",
        "what is remembered is forgotten where it is not so",
        (
            "        except QuotaMoved:\n            self._calls.forget(self._subject)\n",
            "        except QuotaMoved:\n",
        ),
    ),
    python(
        "postgres/spending",
        "the owner's wish to refuse is ignored",
        "REFUSE_WITHOUT_REDIS",
        ("            if self._refuses:\n", "            if False:\n"),
    ),
    python(
        "postgres/ledger",
        "a caller's transaction is accepted",
        "the statement that records has its own clock and commits",
        ("!= TransactionStatus.IDLE", "== TransactionStatus.UNKNOWN"),
    ),
    python(
        "postgres/audit",
        "the audit repairs nothing",
        "counts equal the ledger after an audit at rest",
        ("if repair and drifts:", "if False:"),
    ),
    python(
        "calls",
        "settle gives back what was used",
        "the lowest slots are the used ones",
        ("ranges.split(reservation.ranges, used)[1]", "ranges.split(reservation.ranges, used)[0]"),
    ),
    python(
        "calls",
        "a FULL is remembered beyond the end of its period",
        "another quota rules from its start on",
        ("if answer.changes_in_ms is None:", "if True:"),
    ),
    python(
        "connection",
        "a connection that failed half-way is used again",
        "an answer goes to the call that asked",
        (
            "            self._wires.drop(wire)\n            raise",
            "            self._wires.give_back(wire)\n            raise",
        ),
    ),
    python(
        "types",
        "no hold ever expires",
        "a lease ends",
        ("if hold.expires_ms <= self.now_ms", "if False"),
    ),
    python(
        "breaker",
        "the breaker never opens",
        "no call waits for a dead Redis after the first failures",
        ("return self.failed_in_a_row >= self._failures", "return False"),
    ),
    python(
        "breaker",
        "the breaker never closes",
        "Redis is used again when it answers",
        ('answers again.")\n        self.failed_in_a_row = 0', 'answers again.")'),
    ),
    python(
        "breaker",
        "after the pause everybody tries",
        "one call at a time tries",
        (
            "            self._retry_at = self._clock() + self._pause\n            return True",
            "            return True",
        ),
    ),
    python(
        "django/signals",
        "an edit reaches Redis before it commits",
        "Redis hears of what is committed",
        ("transaction.on_commit(push, using=quota_settings().database, robust=True)", "push()"),
    ),
    python(
        "django/models",
        "saving an instance writes its old count",
        "the used column is sync's alone",
        ("if not field.primary_key and field.name != self.quota.used", "if not field.primary_key"),
    ),
)

MISTAKES = IN_LEDGER + IN_RECORD + IN_TAKE + IN_OFFERS + IN_SCRIPTS + IN_PYTHON
