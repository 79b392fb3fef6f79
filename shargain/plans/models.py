"""Plans, who has them, what renewal armed for whom, and units that were granted."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from shargain.offers.models import MAX_LIMIT, ScrapingTarget
from shargain.plans.rhythm import MAX_DAYS, Rhythm, zone

MAX_REASON = 500


def check_time_zone(name: str) -> None:
    try:
        zone(name)
    except ValueError as error:
        raise ValidationError(str(error)) from error


class Repeats(models.TextChoices):
    MONTHLY = "monthly", "every month"
    DAYS = "days", "every N days"


class Plan(models.Model):
    """A limit and how its periods repeat, for any number of targets."""

    name = models.CharField(max_length=100, unique=True)
    max_offers_per_period = models.BigIntegerField(
        null=True, blank=True, help_text="Most offers in a period. Empty means unlimited."
    )
    repeats = models.CharField(max_length=10, choices=Repeats, default=Repeats.MONTHLY)
    every_days = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text=f"Days of a period, 1 to {MAX_DAYS}; empty for months."
    )
    anchor = models.DateField(
        help_text="A day on which a period begins. The 31st stands for the last day of shorter months."
    )
    time_zone = models.CharField(
        max_length=60, default="UTC", validators=[check_time_zone], help_text="As Europe/Warsaw."
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(max_offers_per_period=None)
                | Q(max_offers_per_period__gte=0, max_offers_per_period__lte=MAX_LIMIT),
                name="plan_limit_in_range",
                violation_error_message=f"Give a limit of 0 to {MAX_LIMIT:,}, or none.",
            ),
            models.CheckConstraint(
                condition=Q(repeats=Repeats.MONTHLY, every_days=None)
                | Q(repeats=Repeats.DAYS, every_days__gte=1, every_days__lte=MAX_DAYS),
                name="plan_days_where_it_repeats_by_days",
                violation_error_message=f"Every N days needs 1 to {MAX_DAYS} days, every month none.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.anchor:
            try:
                Rhythm(self.anchor)
            except ValueError as error:
                raise ValidationError({"anchor": str(error)}) from error

    @property
    def rhythm(self) -> Rhythm:
        return Rhythm(self.anchor, self.time_zone, self.every_days)


class Subscription(models.Model):
    """That a target has a plan. While it repeats, renewal keeps its next period armed."""

    target = models.OneToOneField(
        ScrapingTarget, on_delete=models.CASCADE, related_name="subscription"
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    has_own_limit = models.BooleanField(default=False, help_text="Instead of the plan's limit.")
    own_limit = models.BigIntegerField(null=True, blank=True, help_text="Empty means unlimited.")
    repeats = models.BooleanField(
        default=True,
        help_text="Without it no period is armed any more; once the last has ended, nothing limits the target.",
    )
    checked_until = models.DateTimeField(
        null=True,
        editable=False,
        help_text="Up to this moment it is known whether a quota ruled at all times.",
    )
    gap_start = models.DateTimeField(
        null=True, editable=False, help_text="The last time without any quota: nothing was limited."
    )
    gap_end = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(own_limit=None)
                | Q(has_own_limit=True, own_limit__gte=0, own_limit__lte=MAX_LIMIT),
                name="subscription_own_limit_in_range",
                violation_error_message=f"Say that it has its own limit, and give 0 to {MAX_LIMIT:,} or none.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.target} on {self.plan}"

    @property
    def limit(self) -> int | None:
        """Most offers in a period; None = unlimited."""
        return self.own_limit if self.has_own_limit else self.plan.max_offers_per_period


class ArmedPeriod(models.Model):
    """What renewal has set for a subscription: the present period and those ahead. A quota that says something
    else was edited by hand. No foreign key to it, for it may be deleted by hand too."""

    subscription = models.ForeignKey(
        Subscription, on_delete=models.CASCADE, related_name="armed_periods"
    )
    quota_id = models.BigIntegerField()
    limit = models.BigIntegerField(null=True)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["subscription", "period_start"], name="armedperiod_start_once"
            ),
        ]

    def __str__(self) -> str:
        return f"quota {self.quota_id} from {self.period_start:%Y-%m-%d %H:%M}"


class Correction(models.Model):
    """Units that were granted: the limit rose by them. Never changed; it outlives its quota."""

    key = models.UUIDField(unique=True, editable=False)
    quota_id = models.BigIntegerField()
    target_id = models.BigIntegerField()
    units = models.BigIntegerField()
    limit_before = models.BigIntegerField()
    reason = models.CharField(max_length=MAX_REASON)
    who = models.CharField(max_length=200)
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["quota_id", "id"], name="correction_quota")]
        constraints = [
            models.CheckConstraint(condition=Q(units__gte=1), name="correction_units_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.units:,} for quota {self.quota_id}"

    @property
    def limit_after(self) -> int:
        return self.limit_before + self.units
