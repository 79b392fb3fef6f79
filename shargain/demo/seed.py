"""Makes what the demonstration works on: an owner, a login, and targets with quotas of each kind."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth import get_user_model
from django.utils import timezone

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.quota import QuotaService

OWNER = "demo-owner"
LOGIN = "demo-admin"
DEFAULT_SWITCH = timedelta(seconds=30)
AFTER_SWITCH = timedelta(hours=1)

SMALL = "small, hourly"
LARGE = "large"
UNLIMITED = "unlimited"
UNRULED = "no quota"
OVERLAPPING = "overlapping"
SWITCHING = "switching"
NAMES = (SMALL, LARGE, UNLIMITED, UNRULED, OVERLAPPING, SWITCHING)


@dataclass(frozen=True, slots=True)
class Login:
    """An account for the admin, made for one run."""

    username: str
    password: str


def make_targets(switch_after: timedelta = DEFAULT_SWITCH) -> list[ScrapingTarget]:
    """The targets of the demonstration, by number, with quotas that are active now.

    What stands from an earlier run goes on, edits of its quotas included. `switch_after` is when
    the quota of the switching target ends and the one after it begins.
    """
    owner = _user(OWNER)
    targets = {
        name: ScrapingTarget.objects.get_or_create(owner=owner, name=name)[0] for name in NAMES
    }
    now = timezone.now()
    hour, day = now.replace(minute=0, second=0, microsecond=0), _midnight(now)
    _renew(targets[SMALL], 50, hour)
    _open(targets[LARGE], 20_000, day)
    _open(targets[UNLIMITED], None, day)
    _open(targets[OVERLAPPING], 10_000, day - timedelta(days=1))
    _renew(targets[OVERLAPPING], 400, day, day + timedelta(days=1))
    _switch(targets[SWITCHING], now, now + switch_after)
    return sorted(targets.values(), key=lambda target: target.pk)


def open_login() -> Login:
    """A login to the admin with a password of its own; see `close_login`."""
    login = Login(LOGIN, secrets.token_urlsafe(9))
    user = _user(LOGIN)
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(login.password)
    user.save()
    return login


def close_login() -> None:
    """Take the login away, for the run is over and nobody watches over it."""
    get_user_model().objects.filter(username=LOGIN).update(is_active=False)


def _user(name: str):  # type: ignore[no-untyped-def]  # whatever the project's user model is
    user, is_new = get_user_model().objects.get_or_create(username=name)
    if is_new:
        user.set_unusable_password()
        user.save()
    return user


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _open(target: ScrapingTarget, limit: int | None, start: datetime) -> None:
    """Give the target a quota for good, unless it has one."""
    if QuotaService().get_active_quota(target) is None:
        QuotaService().set_new_quota(target, max_offers_per_period=limit, period_start=start)


def _renew(
    target: ScrapingTarget, limit: int, start: datetime, end: datetime | None = None
) -> None:
    """Open a period unless it was opened already; one for good that began earlier is closed."""
    service = QuotaService()
    active = service.get_active_quota(target)
    if active is not None and active.period_start >= start:
        return
    service.set_new_quota(target, max_offers_per_period=limit, period_start=start, period_end=end)
    if active is not None and end is None:
        service.close_quota(active.id)


def _switch(target: ScrapingTarget, now: datetime, moment: datetime) -> None:
    """Both periods are known ahead, so Redis changes from one to the other by its own clock."""
    for limit, start, end in ((100, now, moment), (200, moment, moment + AFTER_SWITCH)):
        QuotaService().set_new_quota(
            target, max_offers_per_period=limit, period_start=start, period_end=end
        )
