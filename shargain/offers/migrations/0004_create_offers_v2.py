from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from shargain.offers.models import OfferQuota

TAKE = "quota_redis_take_v3"


def create_functions(
    apps: Any,  # noqa: ARG001
    schema_editor: BaseDatabaseSchemaEditor,
    take: str = TAKE,
) -> None:
    """Make them; `take` is the primitive that finds slots for the direct road."""
    text = (Path(__file__).parent.parent / "sql" / "create_offers_v2.sql").read_text(
        encoding="utf-8"
    )
    namespace = settings.QUOTA_REDIS["NAMESPACE"]
    prefix = OfferQuota.quota.prefix
    text = text.replace("{namespace}", namespace).replace("{prefix}", prefix).replace(TAKE, take)
    schema_editor.execute(text, None)


def _drop_functions(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:  # noqa: ARG001
    schema_editor.execute(
        "DROP FUNCTION IF EXISTS shargain_create_offers_v2, shargain_known_offers_v2", None
    )


class Migration(migrations.Migration):
    """The statements that create a batch, version 2, beside those that processes of the release before call."""

    dependencies = [("offers", "0003_quota_edit"), ("quota_redis", "0002_record_v2")]

    operations = [migrations.RunPython(create_functions, _drop_functions)]
