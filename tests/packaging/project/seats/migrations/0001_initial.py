from django.db import migrations, models

from quota_redis.django.binding import Binding
from quota_redis.django.operations import BindQuota


class Migration(migrations.Migration):
    initial = True
    dependencies = [("quota_redis", "0001_ledger")]
    operations = [
        migrations.CreateModel(
            name="SeatQuota",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("room", models.CharField(max_length=50)),
                ("seats", models.IntegerField(null=True)),
                ("sold", models.IntegerField(default=0)),
                ("opens", models.DateTimeField()),
                ("closes", models.DateTimeField(null=True)),
            ],
        ),
        BindQuota(
            "SeatQuota",
            Binding(subject="room", limit="seats", used="sold", start="opens", end="closes"),
        ),
    ]
