"""Writing used counts down as they change. Called after a sync has committed them, never by a batch."""

from collections.abc import Iterable, Mapping

from django.db import connection

_COUNTS = """
INSERT INTO usage_usedcount (quota_id, at, used, resolution)
SELECT quota_id, date_trunc('minute', statement_timestamp(), 'UTC'), used, 1
FROM unnest(%s::bigint[], %s::bigint[]) AS counts (quota_id, used)
ORDER BY quota_id
ON CONFLICT (quota_id, at) DO UPDATE SET used = EXCLUDED.used
"""
_COLUMNS = """
INSERT INTO usage_usedcount (quota_id, at, used, resolution)
SELECT id, date_trunc('minute', statement_timestamp(), 'UTC'), used_offers_count, 1
FROM offers_offerquota WHERE id = ANY(%s)
ORDER BY id
ON CONFLICT (quota_id, at) DO UPDATE SET used = EXCLUDED.used
"""


def write_counts(counts: Mapping[int, int]) -> None:
    """Write used units by quota id down for this minute, in one statement; the last call of a minute stands."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, [list(counts), list(counts.values())])


def copy_counts(quota_ids: Iterable[int]) -> None:
    """Write down what the quotas' own rows say, where an audit has put them right."""
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, [sorted(set(quota_ids))])
