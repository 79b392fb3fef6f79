from django.db import migrations

from quota_redis.postgres.schema import schema_sql


class Migration(migrations.Migration):
    """The primitives of version 2, beside those that processes of the release before call."""

    dependencies = [("quota_redis", "0001_ledger")]

    operations = [
        migrations.RunSQL(schema_sql(2), "DROP FUNCTION IF EXISTS quota_redis_record_v2"),
    ]
