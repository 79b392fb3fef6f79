"""Who is told what, and what was told. No foreign keys to quotas: what was told outlives them."""

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from shargain.alerts.signing import new_salt, secret_of
from shargain.offers.models import MAX_URL_BYTES, ScrapingTarget

PREDICTED = "predicted"
MAX_PERCENTS = 10
MAX_ERROR = 300


class TargetThresholds(models.Model):
    """What is told of a target's quotas, in place of the settings' ALERT_PERCENTS and ALERT_PREDICTED."""

    target = models.OneToOneField(ScrapingTarget, on_delete=models.CASCADE, related_name="+")
    percents = ArrayField(
        models.PositiveSmallIntegerField(
            validators=[MinValueValidator(1), MaxValueValidator(100)],
        ),
        size=MAX_PERCENTS,
        blank=True,
        default=list,
        help_text="Percent of the limit, separated by commas, as 80,100. Empty: none is told.",
    )
    is_predicted = models.BooleanField(
        default=True, help_text="Tell when a quota will be used up before its period ends."
    )

    class Meta:
        verbose_name_plural = "target thresholds"

    def __str__(self) -> str:
        return f"thresholds of {self.target}"


class Endpoint(models.Model):
    """Where webhooks go. Its secret is made from the salt and the SECRET_KEY, so that no row holds it."""

    name = models.CharField(max_length=100)
    url = models.CharField(max_length=MAX_URL_BYTES, help_text="https, and a public address.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text="Hears of this owner's targets. Empty: of all.",
    )
    is_active = models.BooleanField(default=True)
    salt = models.CharField(max_length=64, default=new_salt, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        from shargain.alerts.webhooks import check_url
        from shargain.scraping import ForbiddenAddress

        try:
            check_url(self.url)
        except ForbiddenAddress as error:
            raise ValidationError({"url": str(error)}) from error

    @property
    def secret(self) -> str:
        """What its webhooks are signed with."""
        return secret_of(self.salt)


class Alert(models.Model):
    """A threshold that a quota has reached: told once for a limit, and again only for a higher one."""

    event_id = models.UUIDField(default=uuid.uuid4, unique=True)
    quota_id = models.BigIntegerField()
    target_id = models.BigIntegerField(db_index=True)
    threshold = models.CharField(max_length=10, help_text=f"Percent of the limit, or {PREDICTED}.")
    limit = models.BigIntegerField()
    used = models.BigIntegerField()
    period_start = models.DateTimeField()
    period_end = models.DateTimeField(null=True)
    runs_out_at = models.DateTimeField(null=True)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["at"], name="alert_at")]
        constraints = [
            models.UniqueConstraint(
                fields=["quota_id", "threshold", "limit"], name="alert_quota_threshold_once"
            ),
        ]

    def __str__(self) -> str:
        kind = self.threshold if self.threshold == PREDICTED else f"{self.threshold} %"
        return f"{kind} of quota {self.quota_id}"


class DeliveryState(models.TextChoices):
    WAITING = "waiting", "waiting"
    DELIVERED = "delivered", "delivered"
    FAILED = "failed", "failed for good"


class Delivery(models.Model):
    """An alert on its way to one receiver: an endpoint, or an e-mail address."""

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="deliveries")
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    recipient = models.EmailField(blank=True)
    state = models.CharField(max_length=10, choices=DeliveryState, default=DeliveryState.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(help_text="When it is tried next.")
    delivered_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=MAX_ERROR, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(
                fields=["due_at"], name="delivery_due", condition=Q(state=DeliveryState.WAITING)
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["alert", "endpoint"], name="delivery_endpoint_once"),
            models.UniqueConstraint(
                fields=["alert", "recipient"],
                name="delivery_recipient_once",
                condition=Q(endpoint=None),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.alert} to {self.endpoint or self.recipient}"
