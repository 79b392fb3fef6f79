import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
from django.db import migrations, models

from quota_redis.django.operations import InstallLedger


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[InstallLedger()],
            state_operations=[
                migrations.CreateModel(
                    name="LedgerEntry",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True,
                                primary_key=True,
                                serialize=False,
                                verbose_name="ID",
                            ),
                        ),
                        ("namespace", models.CharField(max_length=32)),
                        ("quota_id", models.BigIntegerField()),
                        ("slots", django.contrib.postgres.fields.ranges.BigIntegerRangeField()),
                        ("void", models.BooleanField(db_default=False, default=False)),
                    ],
                    options={
                        "db_table": "quota_redis_ledger",
                        "verbose_name_plural": "ledger entries",
                        "constraints": [
                            django.contrib.postgres.constraints.ExclusionConstraint(
                                expressions=[
                                    ("quota_id", "="),
                                    ("slots", "&&"),
                                    ("namespace", "="),
                                ],
                                name="quota_redis_ledger_slot_once",
                            )
                        ],
                    },
                ),
                migrations.CreateModel(
                    name="SubjectVersion",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True,
                                primary_key=True,
                                serialize=False,
                                verbose_name="ID",
                            ),
                        ),
                        ("namespace", models.CharField(max_length=32)),
                        ("subject", models.CharField(max_length=200)),
                        ("version", models.BigIntegerField()),
                    ],
                    options={
                        "db_table": "quota_redis_subject",
                        "constraints": [
                            models.UniqueConstraint(
                                fields=("namespace", "subject"), name="quota_redis_subject_once"
                            )
                        ],
                    },
                ),
                migrations.CreateModel(
                    name="SubjectMark",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True,
                                primary_key=True,
                                serialize=False,
                                verbose_name="ID",
                            ),
                        ),
                        ("namespace", models.CharField(max_length=32)),
                        ("subject", models.CharField(max_length=200)),
                    ],
                    options={"db_table": "quota_redis_mark"},
                ),
            ],
        ),
    ]
