"""Which thresholds were reached. One statement raises all alerts of many quotas, and each of them once."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from shargain.alerts.deliveries import prepare
from shargain.alerts.models import PREDICTED, Alert
from shargain.alerts.signals import threshold_reached
from shargain.offers.models import OfferQuota
from shargain.offers.services.quota import QuotaInfo
from shargain.usage.services import Pace, paces

BATCH = 1_000
PREDICTED_AFTER = timedelta(hours=6)
"""How old a period must be before its end is foretold, or a quarter of it where that is less: the first batch of a
period says nothing of the rest."""

# Candidates join their quota as it is now. The unique constraint decides between two that raise at once, NOT
# EXISTS keeps an alert quiet until the limit is higher than when it was raised.
_RAISE = """
INSERT INTO alerts_alert
    (event_id, quota_id, target_id, threshold, "limit", used, period_start, period_end, runs_out_at, at)
SELECT gen_random_uuid(), q.id, q.target_id, reached.threshold, q.max_offers_per_period, asked.used,
    q.period_start, q.period_end, asked.runs_out_at, statement_timestamp()
FROM unnest(%(ids)s::bigint[], %(used)s::bigint[], %(runs_out)s::timestamptz[])
    AS asked (quota_id, used, runs_out_at)
JOIN offers_offerquota AS q ON q.id = asked.quota_id
LEFT JOIN alerts_targetthresholds AS own ON own.target_id = q.target_id
CROSS JOIN LATERAL (
    SELECT percent::text FROM unnest(coalesce(own.percents, %(percents)s::smallint[])) AS percent
    WHERE asked.used * 100 >= q.max_offers_per_period * percent
    UNION
    SELECT %(predicted)s WHERE asked.runs_out_at IS NOT NULL AND coalesce(own.is_predicted, %(is_predicted)s)
) AS reached (threshold)
WHERE q.max_offers_per_period > 0
    AND (q.period_end IS NULL OR q.period_end > statement_timestamp())
    AND NOT EXISTS (
        SELECT FROM alerts_alert AS told
        WHERE told.quota_id = q.id AND told.threshold = reached.threshold
            AND told."limit" >= q.max_offers_per_period
    )
ORDER BY q.id, reached.threshold
ON CONFLICT (quota_id, threshold, "limit") DO NOTHING
RETURNING id
"""


def raise_alerts(
    used: Mapping[int, int], *, runs_out_at: Mapping[int, datetime] | None = None
) -> list[Alert]:
    """Raise what these used units by quota id have reached and nobody was told of yet; returns what was raised.

    One statement where nothing was. What is raised is committed with its deliveries, then the signal is sent.
    """
    foretold = runs_out_at or {}
    values: dict[str, Any] = {
        "ids": list(used),
        "used": list(used.values()),
        "runs_out": [foretold.get(quota_id) for quota_id in used],
        "percents": list(settings.ALERT_PERCENTS),
        "predicted": PREDICTED,
        "is_predicted": settings.ALERT_PREDICTED,
    }
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_RAISE, values)
            ids = [pk for (pk,) in cursor.fetchall()]
        alerts = list(Alert.objects.filter(pk__in=ids).order_by("pk")) if ids else []
        prepare(alerts)
    for alert in alerts:
        threshold_reached.send_robust(Alert, alert=alert)
    return alerts


def evaluate() -> int:
    """Look at all quotas that rule: what a sync could not tell, and what will run out.

    Used units are those of the last sync. Returns how many alerts were raised.
    """
    raised = 0
    for quotas in _batches():
        infos = [_info(quota) for quota in quotas]
        will = _foretold(infos, paces(infos))
        raised += len(raise_alerts({info.id: info.used for info in infos}, runs_out_at=will))
    return raised


def _batches() -> Iterator[Sequence[OfferQuota]]:
    """The quota that rules each target, where it has a limit."""
    after = 0
    while batch := list(_ruling().filter(target_id__gt=after)[:BATCH]):
        after = batch[-1].target_id
        if limited := [quota for quota in batch if quota.max_offers_per_period]:
            yield limited


def _ruling() -> "QuerySet[OfferQuota]":
    is_open = Q(period_end=None) | Q(period_end__gt=Now())
    begun = cast(
        "QuerySet[OfferQuota]", OfferQuota.objects.filter(is_open, period_start__lte=Now())
    )
    return begun.order_by("target_id", "-period_start").distinct("target_id")


def _info(quota: OfferQuota) -> QuotaInfo:
    return QuotaInfo(
        id=quota.pk,
        target_id=quota.target_id,
        max_offers_per_period=quota.max_offers_per_period,
        period_start=quota.period_start,
        period_end=quota.period_end,
        used=quota.used_offers_count,
        held=0,
        is_live=False,
    )


def _foretold(infos: Sequence[QuotaInfo], rates: Mapping[int, Pace]) -> dict[int, datetime]:
    """When quotas run out that do so before their period ends, and have not yet."""
    now = datetime.now(UTC)
    found = {}
    for info in infos:
        moment = rates[info.id].runs_out_at
        if moment is not None and moment > now and _is_old_enough(info, now):
            found[info.id] = moment
    return found


def _is_old_enough(info: QuotaInfo, now: datetime) -> bool:
    if info.period_end is None:
        return False
    least = min(PREDICTED_AFTER, (info.period_end - info.period_start) / 4)
    return now - info.period_start >= least


def forget_old(*, kept: timedelta = timedelta(days=400), most: int = 10_000) -> int:
    """Delete alerts of periods that ended so long ago, with their deliveries; returns how many alerts went."""
    old = Alert.objects.filter(period_end__lt=Now() - kept).order_by("pk")
    return Alert.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:most])).delete()[0]
