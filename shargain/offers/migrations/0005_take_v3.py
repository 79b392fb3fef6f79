from importlib import import_module
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

created_by = import_module("shargain.offers.migrations.0004_create_offers_v2")


def _replace_functions(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    created_by.create_functions(apps, schema_editor)


def _put_back_functions(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    created_by.create_functions(apps, schema_editor, take="quota_redis_take_v1")


class Migration(migrations.Migration):
    """Creation takes slots for the direct road by version 3, also where it was made before there was one."""

    dependencies = [("offers", "0004_create_offers_v2"), ("quota_redis", "0003_take_v3")]

    operations = [migrations.RunPython(_replace_functions, _put_back_functions)]
