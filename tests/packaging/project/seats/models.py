from django.db import models

from quota_redis.django.models import Binding, QuotaDefinition


class SeatQuota(QuotaDefinition):
    """How many seats of a room may be sold in a season; rooms are known by their names."""

    room = models.CharField(max_length=50)
    seats = models.IntegerField(null=True)
    sold = models.IntegerField(default=0)
    opens = models.DateTimeField()
    closes = models.DateTimeField(null=True)

    quota = Binding(subject="room", limit="seats", used="sold", start="opens", end="closes")
