from django.db import migrations

from quota_redis.postgres.schema import schema_sql


class Migration(migrations.Migration):
    """The primitives of version 3, beside those that processes of the release before call."""

    dependencies = [("quota_redis", "0002_record_v2")]

    operations = [
        migrations.RunSQL(
            schema_sql(3),
            [
                "DROP FUNCTION IF EXISTS quota_redis_take_v3, quota_redis_gap_v3",
                "ALTER TABLE quota_redis_ledger ALTER COLUMN quota_id RESET (n_distinct)",
            ],
        ),
    ]
