"""Which tests a mutant of a file is tried against, the likeliest and cheapest first."""

CORE, LEDGER, DJANGO, OFFERS = "tests/core", "tests/ledger", "tests/django_app", "tests/offers"
SEARCH = "tests/interleavings/test_interleavings.py::test_no_interleaving_breaks_the_guarantee"
LEFT_OUT = ("tests/offers/test_offer_creation.py::test_many_processes_create_exactly_the_limit",)
"""Dear, and about what the search over interleavings is about too."""

_EVERYTHING = (CORE, LEDGER, DJANGO, OFFERS, SEARCH)
_FROM_LEDGER = (LEDGER, DJANGO, OFFERS, SEARCH)

# What uses a file at all, where that is less than everything.
_FOLDERS = {
    "scripts/lua/consume.lua": (CORE,),
    "scripts/lua/define.lua": (CORE,),
    "quota_redis/postgres/": _FROM_LEDGER,
    "quota_redis/stock": ("tests/stocks",),
    "quota_redis/django/": (DJANGO, OFFERS),
    "shargain/": (OFFERS, SEARCH),
}
_FIRST = {
    "scripts/lua/absorb.lua": ("tests/ledger/test_absorb.py",),
    "scripts/lua/consume.lua": ("tests/core/test_consume.py",),
    "scripts/lua/define.lua": ("tests/core/test_define.py",),
    "scripts/lua/load.lua": ("tests/ledger/test_sync_at_scale.py", "tests/ledger/test_absorb.py"),
    "scripts/lua/snapshots.lua": ("tests/ledger/test_absorb.py",),
    "scripts/lua/unmark.lua": ("tests/ledger/test_sync.py", "tests/ledger/test_sync_at_scale.py"),
    "scripts/lua/": ("tests/core/test_reserve_and_settle.py", "tests/core/test_define.py"),
    "quota_redis/breaker.py": ("tests/core/test_breaker.py",),
    "quota_redis/calls.py": (
        "tests/core/test_replies.py",
        "tests/core/test_many_at_once.py",
        "tests/core/test_recent.py",
        "tests/core/test_connection.py",
    ),
    "quota_redis/connection.py": (
        "tests/core/test_connection.py",
        "tests/core/test_many_at_once.py",
    ),
    "quota_redis/stock": ("tests/stocks/test_stock_book.py", "tests/stocks/test_stocks.py"),
    "quota_redis/wire.py": ("tests/core/test_connection.py",),
    "quota_redis/keys.py": ("tests/core/test_arguments.py",),
    "quota_redis/ranges.py": ("tests/core/test_ranges.py",),
    "quota_redis/types.py": ("tests/core/test_arguments.py",),
    "quota_redis/postgres/sql/": (
        "tests/ledger/test_primitives.py",
        "tests/ledger/test_exactness_edges.py",
    ),
    "quota_redis/postgres/absorb.py": ("tests/ledger/test_absorb.py",),
    "quota_redis/postgres/audit.py": ("tests/ledger/test_audit.py",),
    "quota_redis/postgres/spending.py": (
        "tests/ledger/test_spend.py",
        "tests/ledger/test_exactness_edges.py",
    ),
    "quota_redis/postgres/ledger.py": (
        "tests/ledger/test_primitives.py",
        "tests/ledger/test_spend.py",
    ),
    "quota_redis/postgres/schema.py": ("tests/ledger/test_schema.py",),
    "quota_redis/postgres/shards.py": ("tests/ledger/test_sync_at_scale.py",),
    "quota_redis/postgres/sync.py": (
        "tests/ledger/test_sync.py",
        "tests/ledger/test_sync_at_scale.py",
    ),
    "quota_redis/postgres/table.py": ("tests/ledger/test_schema.py",),
    "quota_redis/django/models.py": ("tests/django_app/test_definition_models.py",),
    "shargain/offers/sql/": (
        "tests/offers/test_disagreements.py",
        "tests/offers/test_offer_creation.py",
    ),
    "shargain/offers/services/": ("tests/offers/test_story.py", "tests/offers/test_outages.py"),
}


def folders_of(file: str) -> tuple[str, ...]:
    """All that is run, in this order."""
    return _best(_FOLDERS, file) or _EVERYTHING


def first_of(file: str) -> tuple[str, ...]:
    """What of it is run before the rest."""
    return _best(_FIRST, file)


def _best(table: dict[str, tuple[str, ...]], file: str) -> tuple[str, ...]:
    """The entry of the longest beginning of the file's name."""
    return table[max(fits, key=len)] if (fits := [k for k in table if file.startswith(k)]) else ()
