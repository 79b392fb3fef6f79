from django.db import migrations, models

# Quotas are older than their history: what they have used by now is the first that is known of them.
_BEGIN = """
INSERT INTO usage_usedcount (quota_id, at, used, resolution)
SELECT id, date_trunc('minute', statement_timestamp(), 'UTC'), used_offers_count, 0
FROM offers_offerquota WHERE used_offers_count > 0
"""
# Room on each page, so that counts change in place and no index has to follow.
_LEAVE_ROOM = """
ALTER TABLE usage_usedcount SET (fillfactor = 70);
ALTER TABLE usage_offercount SET (fillfactor = 70);
"""


class Migration(migrations.Migration):
    """History of used counts, counts of offers, and how upkeep went."""

    initial = True

    dependencies = [("offers", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="AuditFinding",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(max_length=10)),
                ("ended_at", models.DateTimeField()),
                ("is_complete", models.BooleanField()),
                ("seconds", models.FloatField(null=True)),
                ("drift_count", models.PositiveIntegerField(default=0)),
                ("drifts", models.JSONField(default=list)),
                ("problems", models.JSONField(default=dict)),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="LastRun",
            fields=[
                ("ended_at", models.DateTimeField()),
                ("is_complete", models.BooleanField()),
                ("seconds", models.FloatField(null=True)),
                ("drift_count", models.PositiveIntegerField(default=0)),
                ("drifts", models.JSONField(default=list)),
                ("problems", models.JSONField(default=dict)),
                ("kind", models.CharField(max_length=10, primary_key=True, serialize=False)),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="OfferCount",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "quota_id",
                        "resolution",
                        "at",
                        "target_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("quota_id", models.BigIntegerField(help_text="0: none was active.")),
                (
                    "resolution",
                    models.SmallIntegerField(
                        choices=[(0, "Earliest"), (1, "Minute"), (60, "Hour"), (1440, "Day")]
                    ),
                ),
                (
                    "at",
                    models.DateTimeField(help_text="Where the minute, hour or day (UTC) begins."),
                ),
                ("target_id", models.BigIntegerField()),
                ("created", models.BigIntegerField()),
                ("duplicates", models.BigIntegerField()),
                ("discarded", models.BigIntegerField()),
            ],
            options={
                "indexes": [models.Index(fields=["resolution", "at"], name="usage_offers_age")],
            },
        ),
        migrations.CreateModel(
            name="UsedCount",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "quota_id",
                        "at",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("quota_id", models.BigIntegerField()),
                ("at", models.DateTimeField(help_text="The minute, by PostgreSQL's clock.")),
                ("used", models.BigIntegerField()),
                (
                    "resolution",
                    models.SmallIntegerField(
                        choices=[(0, "Earliest"), (1, "Minute"), (60, "Hour"), (1440, "Day")]
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["resolution", "at"], name="usage_used_age")],
            },
        ),
        migrations.RunSQL(_LEAVE_ROOM, migrations.RunSQL.noop),
        migrations.RunSQL(_BEGIN, migrations.RunSQL.noop),
    ]
