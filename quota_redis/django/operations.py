"""Migration operations: one installs the ledger, one binds a project's own table to it."""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from quota_redis.django.binding import Binding
from quota_redis.postgres.schema import schema_sql

__all__ = ["BindQuota", "InstallLedger"]


class InstallLedger(Operation):
    """Creates extension, tables and functions of the ledger; reversing drops the tables and all counts."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """The models are state operations beside this one."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        _execute(schema_editor, schema_sql())

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        _execute(
            schema_editor,
            "DROP TABLE IF EXISTS quota_redis_ledger, quota_redis_subject, quota_redis_mark",
        )

    def describe(self) -> str:
        return "Install the quota ledger"


class BindQuota(Operation):
    """Binds the table of a QuotaDefinition to the ledger: from here on its limits hold.

    The binding is repeated here, for a migration must not change when the model does; a check compares them.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, model_name: str, binding: Binding) -> None:
        self.model_name = model_name
        self.binding = binding

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Triggers are no part of the models' state."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        _execute(schema_editor, self.binding.table(model).install_sql())

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        _execute(schema_editor, self.binding.table(model).uninstall_sql())

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (type(self).__name__, [self.model_name, self.binding], {})

    def describe(self) -> str:
        return f"Bind {self.model_name} to the quota ledger"


def _execute(schema_editor: BaseDatabaseSchemaEditor, sql: str) -> None:
    """Without parameters, so that no percent sign of the SQL is read as a placeholder."""
    schema_editor.execute(sql, None)
