from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from quota_redis.django.binding import Binding
from quota_redis.django.operations import BindQuota

QUOTA = Binding(subject="target_id", limit="max_offers_per_period", used="used_offers_count")


def _create_functions(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    text = (Path(__file__).parent.parent / "sql" / "create_offers_v1.sql").read_text(
        encoding="utf-8"
    )
    namespace = settings.QUOTA_REDIS["NAMESPACE"]
    schema_editor.execute(
        text.replace("{namespace}", namespace).replace("{prefix}", QUOTA.prefix), None
    )


def _drop_functions(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    schema_editor.execute(
        "DROP FUNCTION IF EXISTS shargain_create_offers_v1, shargain_known_offers_v1", None
    )


class Migration(migrations.Migration):
    """Binds quotas to the ledger, and installs the statement that creates a batch."""

    dependencies = [("offers", "0001_initial"), ("quota_redis", "0001_ledger")]

    operations = [
        # Half of each page stays free, so that sync updates counts in place and touches no index.
        migrations.RunSQL(
            "ALTER TABLE offers_offerquota SET (fillfactor = 50)",
            "ALTER TABLE offers_offerquota RESET (fillfactor)",
        ),
        BindQuota("OfferQuota", QUOTA),
        migrations.RunPython(_create_functions, _drop_functions),
    ]
