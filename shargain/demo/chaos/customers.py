"""Targets with quotas of every kind, and people who edit them without rest."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models import QuerySet
from django.utils import timezone

from shargain.demo.chaos import witness
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.errors import QuotaInUse, ServiceUnavailable
from shargain.offers.services.quota import QuotaService

SMALL, SWITCHING, OVERLAPPING = 40, 10, 6
LARGE_LIMITS = (1_000, 100_000)
HOT = 12.0
AHEAD = timedelta(seconds=15)
SHORT = (2.0, 6.0)


class Targets:
    """The targets of a run, by what their quotas are like; made new."""

    def __init__(self, drawn: random.Random) -> None:
        self.owner: User = get_user_model().objects.create_user("chaos")
        self.small = self._make("small", SMALL)
        self.switching = self._make("switching", SWITCHING)
        self.overlapping = self._make("overlapping", OVERLAPPING)
        self.large = self._make("large", len(LARGE_LIMITS))
        self.unlimited = self._make("unlimited", 1)
        self.unruled = self._make("no quota", 1)
        start = timezone.now() - timedelta(minutes=1)
        limits: list[tuple[list[int], Callable[[], int | None]]] = [
            (self.small, lambda: drawn.randint(1, 50)),
            (self.overlapping, lambda: drawn.randint(50, 200)),
            (self.large, iter(LARGE_LIMITS).__next__),
            (self.unlimited, lambda: None),
        ]
        for targets, limit in limits:
            for target in targets:
                _define(target, limit(), start)

    @property
    def weighted(self) -> list[tuple[int, float]]:
        """All targets, and how often each is to be posted to."""
        many = self.small + self.switching + self.overlapping
        few = self.large + self.unlimited + self.unruled
        return [(target, 1.0) for target in many] + [(target, HOT) for target in few]

    def _make(self, name: str, count: int) -> list[int]:
        made = ScrapingTarget.objects.bulk_create(
            ScrapingTarget(owner=self.owner, name=f"{name} {number}") for number in range(count)
        )
        return [target.pk for target in made]


class Customers:
    """Edits at random: each call of `edit` is one edit, and says which."""

    def __init__(self, targets: Targets, drawn: random.Random) -> None:
        self._targets = targets
        self._drawn = drawn
        self._quotas = QuotaService()
        self._armed = {target: timezone.now() for target in targets.switching}
        self._edits: dict[str, tuple[float, Callable[[], object]]] = {
            "limit raised": (6, self._raise),
            "limit lowered": (4, self._lower),
            "limit lowered below used": (4, self._lower_below_used),
            "limit lowered and raised": (2, self._lower_and_raise),
            "limit taken away and given back": (1, self._free_and_bind),
            "limit edited by ORM update": (3, self._update),
            "limit edited by raw SQL": (3, self._raw),
            "quota overlapped": (3, self._overlap),
            "quota closed": (2, self._close),
            "unused quota deleted": (1, self._add_and_delete),
            "used quota not deleted": (1, self._try_to_delete),
            "offers deleted": (4, self._delete_offers),
        }

    def edit(self) -> str:
        """Do one edit, and return its name; an outage of PostgreSQL may have prevented it."""
        name = self._drawn.choices(list(self._edits), [w for w, _ in self._edits.values()])[0]
        close_old_connections()
        try:
            self._arm()
            self._edits[name][1]()
        except (ServiceUnavailable, OperationalError, InterfaceError):
            connection.close()
            return "edit prevented by an outage"
        return name

    def _arm(self) -> None:
        """Keep short periods coming for the switching targets, known ahead and without a gap."""
        for target, until in self._armed.items():
            if until < timezone.now() + AHEAD / 2:
                start = max(until, timezone.now())
                while start < timezone.now() + AHEAD:
                    end = start + timedelta(seconds=self._drawn.uniform(*SHORT))
                    _define(target, self._drawn.choice([None, *range(5, 40)]), start, end)
                    start = self._armed[target] = end

    def _active(self) -> OfferQuota | None:
        drawn = self._drawn.choice(
            [self._targets.small, self._targets.overlapping, self._targets.large]
        )
        target = self._drawn.choice(drawn)
        info = self._quotas.get_active_quota(target)
        if info is None:
            _define(target, self._drawn.randint(1, 50), timezone.now())
            return None
        return OfferQuota.objects.get(pk=info.id)

    def _change(self, limit: Callable[[int, int], int | None]) -> None:
        """Give an active quota the limit that follows from its own and from what is used."""
        if quota := self._active():
            used = self._quotas.describe([quota.pk])[quota.pk].used
            _define(
                quota.target_id,
                limit(quota.max_offers_per_period or used, used),
                quota.period_start,
                quota.period_end,
            )

    def _raise(self) -> None:
        self._change(lambda limit, used: max(limit, used) + self._drawn.randint(1, 20))

    def _lower(self) -> None:
        self._change(lambda limit, used: max(used, limit - self._drawn.randint(1, 20), 0))

    def _lower_below_used(self) -> None:
        self._change(lambda _, used: max(0, used - self._drawn.randint(1, 10)))

    def _lower_and_raise(self) -> None:
        self._change(lambda _, used: max(0, used - self._drawn.randint(0, 3)))
        self._change(lambda limit, used: max(limit, used) + self._drawn.randint(1, 10))

    def _free_and_bind(self) -> None:
        if quota := self._active():
            for limit in (None, quota.max_offers_per_period):
                _define(quota.target_id, limit, quota.period_start, quota.period_end)

    def _update(self) -> None:
        if quota := self._active():
            limit = max(0, (quota.max_offers_per_period or 0) + self._drawn.randint(-15, 15))
            cast("QuerySet[OfferQuota]", OfferQuota.objects.filter(pk=quota.pk)).update(
                max_offers_per_period=limit
            )

    def _raw(self) -> None:
        if quota := self._active():
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE offers_offerquota"
                    " SET max_offers_per_period = greatest(0, used_offers_count + %s) WHERE id = %s",
                    [self._drawn.randint(-10, 20), quota.pk],
                )

    def _overlap(self) -> None:
        start = timezone.now() + timedelta(seconds=self._drawn.uniform(-1, 2))
        end = start + timedelta(seconds=self._drawn.uniform(*SHORT))
        _define(
            self._drawn.choice(self._targets.overlapping), self._drawn.randint(0, 30), start, end
        )

    def _close(self) -> None:
        if quota := self._active():
            self._quotas.close_quota(quota.pk)
            _define(quota.target_id, self._drawn.randint(1, 50), timezone.now())

    def _add_and_delete(self) -> None:
        start = timezone.now() + timedelta(hours=1)
        unused = _define(self._drawn.choice(self._targets.small), 5, start)
        self._quotas.delete_quota(unused)

    def _try_to_delete(self) -> None:
        quota = self._active()
        if quota and self._quotas.describe([quota.pk])[quota.pk].used:
            try:
                self._quotas.delete_quota(quota.pk)
            except QuotaInUse:
                return

    def _delete_offers(self) -> None:
        targets = [target for target, _ in self._targets.weighted]
        witness.delete_offers(
            self._drawn.choice(targets), self._drawn.randint(0, 20), self._drawn.randint(1, 5)
        )


def _define(target: int, limit: int | None, start: datetime, end: datetime | None = None) -> int:
    info = QuotaService().set_new_quota(
        target, max_offers_per_period=limit, period_start=start, period_end=end
    )
    return info.id
