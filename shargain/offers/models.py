"""What shargain collects (targets, offers) and what limits it (quotas)."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from quota_redis.django.models import Binding, QuotaDefinition

MAX_LIMIT = 10**12
MAX_URL_BYTES = 2048


class ScrapingTarget(models.Model):
    """A marketplace search that scrapers visit; what a quota is for."""

    name = models.CharField(max_length=200)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="scraping_targets"
    )
    is_active = models.BooleanField(default=True)

    def __str__(self) -> str:
        return self.name


class Offer(models.Model):
    """One classified ad, known by its address within its target."""

    # The unique index on target and url serves the target too. Where it had one of its own, PostgreSQL looked
    # addresses up by that, and read all offers of the target for each, until ANALYZE had seen the table.
    target = models.ForeignKey(
        ScrapingTarget, on_delete=models.PROTECT, related_name="offers", db_index=False
    )
    url = models.CharField(max_length=MAX_URL_BYTES)
    title = models.CharField(max_length=500)
    price = models.DecimalField(max_digits=12, decimal_places=2, null=True, blank=True)
    main_image_url = models.CharField(max_length=MAX_URL_BYTES, blank=True)
    list_url = models.CharField(max_length=MAX_URL_BYTES, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    last_check_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    quota = models.ForeignKey(
        "OfferQuota",
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        related_name="+",
        help_text="The quota that counted this offer; empty where none was active.",
    )
    batch_id = models.UUIDField(editable=False, help_text="The batch that created this offer.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["target", "url"], name="offer_target_url_unique"),
        ]

    def __str__(self) -> str:
        return self.title


class OfferQuota(QuotaDefinition):
    """How many offers a target may get in a period. `used_offers_count` is written by sync alone."""

    target = models.ForeignKey(ScrapingTarget, on_delete=models.PROTECT, related_name="quotas")
    max_offers_per_period = models.BigIntegerField(
        null=True, blank=True, help_text="Most offers in the period. Empty means unlimited."
    )
    used_offers_count = models.BigIntegerField(default=0, editable=False)
    period_start = models.DateTimeField(help_text="The first moment that counts.")
    period_end = models.DateTimeField(
        null=True, blank=True, help_text="The first moment that no longer counts. Empty: no end."
    )

    quota = Binding(subject="target_id", limit="max_offers_per_period", used="used_offers_count")

    class Meta:
        verbose_name_plural = "offer quotas"
        constraints = [
            models.UniqueConstraint(
                fields=["target", "period_start"], name="offerquota_target_start_unique"
            ),
            models.CheckConstraint(
                condition=Q(period_end=None) | Q(period_end__gt=F("period_start")),
                name="offerquota_end_after_start",
            ),
            models.CheckConstraint(
                condition=Q(max_offers_per_period=None)
                | Q(max_offers_per_period__gte=0, max_offers_per_period__lte=MAX_LIMIT),
                name="offerquota_limit_in_range",
            ),
            models.CheckConstraint(
                condition=Q(used_offers_count__gte=0), name="offerquota_used_not_negative"
            ),
        ]

    def __str__(self) -> str:
        limit = "unlimited" if self.max_offers_per_period is None else self.max_offers_per_period
        return f"{limit} from {self.period_start:%Y-%m-%d %H:%M}"


class FailedBatch(models.Model):
    """A batch that could not be created after all attempts, kept with its payload."""

    batch_id = models.UUIDField(unique=True)
    target_id = models.BigIntegerField(db_index=True)
    payload = models.JSONField()
    error = models.TextField()
    attempts = models.PositiveIntegerField()
    failed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "failed batches"

    def __str__(self) -> str:
        return str(self.batch_id)


class QuotaEdit(models.Model):
    """An edit of a quota, by whatever road it came. Written by a trigger alone, and never changed.

    No foreign keys: what is written down outlives the quota and the target.
    """

    quota_id = models.BigIntegerField()
    target_id = models.BigIntegerField()
    at = models.DateTimeField()
    kind = models.CharField(max_length=10)
    who = models.CharField(max_length=200)
    why = models.CharField(max_length=1000, blank=True)
    before = models.JSONField()
    after = models.JSONField()

    class Meta:
        indexes = [
            models.Index(fields=["quota_id", "id"], name="quotaedit_quota"),
            models.Index(fields=["target_id", "id"], name="quotaedit_target"),
        ]

    def __str__(self) -> str:
        return f"quota {self.quota_id} {self.kind} by {self.who}"
