"""Statistics of quotas and targets. Nothing decides by them, and no quota or edit ever waits for them.

No foreign keys, for the same reason: what is counted may outlive its quota and its target.
"""

from django.db import models

NO_QUOTA = 0
"""Stands for the quota of offers that came while none was active. A primary key has no null."""


class Resolution(models.IntegerChoices):
    """Minutes that a row stands for."""

    EARLIEST = 0
    """The first count that is known of a quota: what was before it is not. It stays as it is."""
    MINUTE = 1
    HOUR = 60
    DAY = 1440


class UsedCount(models.Model):
    """Units of a quota that were used at the end of a minute. They stand until the quota's next row.

    A row is kept where it is the last of its minute, later of its hour, then of its day: at most
    2,940 + 2,184 + 1,827 rows of a quota with the default retention.
    """

    pk = models.CompositePrimaryKey("quota_id", "at")
    quota_id = models.BigIntegerField()
    at = models.DateTimeField(help_text="The minute, by PostgreSQL's clock.")
    used = models.BigIntegerField()
    resolution = models.SmallIntegerField(choices=Resolution)

    class Meta:
        indexes = [models.Index(fields=["resolution", "at"], name="usage_used_age")]

    def __str__(self) -> str:
        return f"{self.used} of quota {self.quota_id} at {self.at:%Y-%m-%d %H:%M}"


class OfferCount(models.Model):
    """What became of the offers of a target under a quota, in a minute, and again in an hour and in a day.

    At most 2,940 + 2,184 + 1,827 rows of a quota with the default retention.
    """

    pk = models.CompositePrimaryKey("quota_id", "resolution", "at", "target_id")
    quota_id = models.BigIntegerField(help_text=f"{NO_QUOTA}: none was active.")
    resolution = models.SmallIntegerField(choices=Resolution)
    at = models.DateTimeField(help_text="Where the minute, hour or day (UTC) begins.")
    target_id = models.BigIntegerField()
    created = models.BigIntegerField()
    duplicates = models.BigIntegerField()
    discarded = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["resolution", "at"], name="usage_offers_age")]

    def __str__(self) -> str:
        return f"target {self.target_id} at {self.at:%Y-%m-%d %H:%M}"


class UpkeepRecord(models.Model):
    """How a run of sync or audit ended. `drifts` are the first of `drift_count`."""

    kind = models.CharField(max_length=10)
    ended_at = models.DateTimeField()
    is_complete = models.BooleanField()
    seconds = models.FloatField(null=True)
    drift_count = models.PositiveIntegerField(default=0)
    drifts = models.JSONField(default=list)
    problems = models.JSONField(default=dict)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.kind} of {self.ended_at:%Y-%m-%d %H:%M}"


class LastRun(UpkeepRecord):
    """The last run of each kind."""

    kind = models.CharField(max_length=10, primary_key=True)


class AuditFinding(UpkeepRecord):
    """An audit that found drifts or problems; the last few are kept."""
