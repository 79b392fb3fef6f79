from pathlib import Path
from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def _create_triggers(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    text = (Path(__file__).parent.parent / "sql" / "quota_edits_v1.sql").read_text(encoding="utf-8")
    schema_editor.execute(text, None)


def _drop_triggers(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    schema_editor.execute(
        "DROP FUNCTION IF EXISTS shargain_record_edit_v1, shargain_keep_edits_v1 CASCADE", None
    )


class Migration(migrations.Migration):
    """The history of quotas' edits, and the trigger that writes it."""

    dependencies = [("offers", "0002_quota_ledger")]

    operations = [
        migrations.CreateModel(
            name="QuotaEdit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("quota_id", models.BigIntegerField()),
                ("target_id", models.BigIntegerField()),
                ("at", models.DateTimeField()),
                ("kind", models.CharField(max_length=10)),
                ("who", models.CharField(max_length=200)),
                ("why", models.CharField(blank=True, max_length=1000)),
                ("before", models.JSONField()),
                ("after", models.JSONField()),
            ],
            options={
                "indexes": [
                    models.Index(fields=["quota_id", "id"], name="quotaedit_quota"),
                    models.Index(fields=["target_id", "id"], name="quotaedit_target"),
                ],
            },
        ),
        migrations.RunPython(_create_triggers, _drop_triggers),
    ]
