"""What the bulk actions would do to each of the chosen quotas, or why they leave it as it is."""

import calendar
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from shargain.console.changes import Change, Skipped, Values, all_quotas
from shargain.offers.models import MAX_LIMIT, OfferQuota
from shargain.offers.services.edits import MAX_WHY

MAX_DAYS = 3660
MAX_PERCENT = 1000
MAX_YEAR = 2999


class WhyForm(forms.Form):
    """What every bulk action asks."""

    why = forms.CharField(
        required=False,
        max_length=MAX_WHY,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Kept with each edit, for who asks later.",
    )
    field_order: tuple[str, ...] = ("days", "until", "percent", "why")


class ExtendForm(WhyForm):
    days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_DAYS,
        label="By days",
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=f"1 to {MAX_DAYS:,}, from each quota's own end.",
    )
    until = forms.DateTimeField(
        required=False,
        label="Or to a moment (UTC)",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
        help_text="The same end for all. It is the first moment that no longer counts.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors and (cleaned["days"] is None) == (cleaned["until"] is None):
            raise forms.ValidationError("Give either days or a moment.")
        until = cleaned.get("until")
        if until and until.year > MAX_YEAR:
            self.add_error("until", f"Give a moment up to the year {MAX_YEAR}.")
        return cleaned


class RaiseForm(WhyForm):
    percent = forms.IntegerField(
        min_value=1,
        max_value=MAX_PERCENT,
        label="By percent",
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=f"1 to {MAX_PERCENT:,}. The new limit is rounded up to the next whole offer.",
    )


class _Left(Exception):  # noqa: N818
    """The quota is left as it is; the text says why."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A bulk action. `after` gives a quota's new values (None = it is closed) or raises _Left."""

    name: str
    title: str
    done: str
    permission: str
    form: type[WhyForm]
    after: Callable[[OfferQuota, datetime, dict[str, Any]], Values | None]
    creates: bool = False

    @property
    def has_parameters(self) -> bool:
        return self.form is not WhyForm


def plan(
    verb: Verb, quotas: Iterable[OfferQuota], parameters: dict[str, Any]
) -> tuple[list[Change], list[Skipped]]:
    """What the verb would do to each of the quotas."""
    now, quotas = timezone.now(), list(quotas)
    taken = _starts({quota.target_id for quota in quotas}) if verb.creates else set()
    changes, skipped = [], []
    for quota in quotas:
        try:
            after = verb.after(quota, now, parameters)
            if verb.creates:
                _claim(taken, quota.target_id, after)
        except _Left as left:
            skipped.append(Skipped(quota.target.name, quota.pk, str(left)))
        else:
            changes.append(_change(quota, after, creates=verb.creates))
    return changes, skipped


def _change(quota: OfferQuota, after: Values | None, *, creates: bool) -> Change:
    name = quota.target.name
    if creates:
        return Change(quota.target_id, name, None, None, after)
    before = Values.of(quota)
    return Change(quota.target_id, name, quota.pk, before, after, used=quota.used_offers_count)


def _starts(targets: set[int]) -> set[tuple[int, datetime]]:
    quotas = all_quotas().filter(target__in=targets)
    return set(quotas.values_list("target_id", "period_start"))


def _claim(taken: set[tuple[int, datetime]], target_id: int, after: Values | None) -> None:
    assert after is not None
    if (target_id, after.start) in taken:
        raise _Left("the target has, or is getting, a quota that starts where this one ends")
    taken.add((target_id, after.start))


def _extended(quota: OfferQuota, now: datetime, parameters: dict[str, Any]) -> Values:
    end = _running_end(quota, now)
    moved = parameters["until"] or end + timedelta(days=parameters["days"])
    if moved.year > MAX_YEAR:
        raise _Left(f"it would end after the year {MAX_YEAR}")
    if moved <= end:
        raise _Left("it ends at that moment or later already")
    return Values(quota.max_offers_per_period, quota.period_start, moved)


def _raised(quota: OfferQuota, now: datetime, parameters: dict[str, Any]) -> Values:
    limit, end = quota.max_offers_per_period, quota.period_end
    if limit is None:
        raise _Left("it has no limit")
    if limit == 0:
        raise _Left("a percentage of a limit of 0 is nothing")
    if end is not None and end <= now:
        raise _Left("its period has ended")
    raised = -(-limit * (100 + parameters["percent"]) // 100)
    if raised > MAX_LIMIT:
        raise _Left(f"the limit would be above {MAX_LIMIT:,}")
    return Values(raised, quota.period_start, end)


def _closed(quota: OfferQuota, now: datetime, _: dict[str, Any]) -> None:
    if quota.period_start >= now:
        raise _Left("it has not begun: delete it, or give it another start")
    if quota.period_end is not None and quota.period_end <= now:
        raise _Left("its period has ended")


def _copied(quota: OfferQuota, now: datetime, _: dict[str, Any]) -> Values:
    if quota.period_end is None:
        raise _Left("it has no end, so nothing can follow it")
    start = quota.period_end
    end = next_end(quota.period_start, start)
    if end is None:
        raise _Left(f"the next period would end after the year {MAX_YEAR}")
    if end <= now:
        raise _Left("the next period would have ended as well")
    return Values(quota.max_offers_per_period, start, end)


def _running_end(quota: OfferQuota, now: datetime) -> datetime:
    if quota.period_end is None:
        raise _Left("it has no end")
    if quota.period_end <= now:
        raise _Left("its period has ended: copy it to the next period instead")
    return quota.period_end


def next_end(start: datetime, end: datetime) -> datetime | None:
    """Where the period after this one ends: as many months later if it is whole months, else as much time later.

    None where that is too far away.
    """
    months = (end.year - start.year) * 12 + end.month - start.month
    try:
        is_whole = months > 0 and _months_after(start, months) == end
        following = _months_after(start, 2 * months) if is_whole else end + (end - start)
    except (ValueError, OverflowError):
        return None
    return following if following.year <= MAX_YEAR else None


def _months_after(moment: datetime, months: int) -> datetime:
    """The same day and time in a later month, or that month's last day."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=min(moment.day, last))


VERBS = {
    verb.name: verb
    for verb in (
        Verb("extend", "Extend the period", "extended", "change", ExtendForm, _extended),
        Verb("raise", "Raise limits", "raised", "change", RaiseForm, _raised),
        Verb("close", "Close", "closed", "change", WhyForm, _closed),
        Verb("copy", "Copy to the next period", "created", "add", WhyForm, _copied, creates=True),
    )
}
