import django.db.models.deletion
from django.db import migrations, models

INDEX = "offers_offer_target_id_39229eaf"  # as Django named it in 0001


class Migration(migrations.Migration):
    """The unique index on target and url serves the target too; one of its own misled the look-up of addresses.

    In SQL, for Django would make the foreign key anew, and read the whole table under a lock for it.
    """

    atomic = False
    dependencies = [("offers", "0005_take_v3")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}",
                    f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON offers_offer (target_id)",
                )
            ],
            state_operations=[
                migrations.AlterField(
                    model_name="offer",
                    name="target",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="offers",
                        to="offers.scrapingtarget",
                    ),
                )
            ],
        )
    ]
