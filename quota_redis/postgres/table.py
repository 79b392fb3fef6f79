"""A user's own table of definitions, and the SQL that binds it to the ledger."""

import re
from dataclasses import dataclass
from hashlib import sha1

from quota_redis.errors import InvalidArgument
from quota_redis.keys import Keys

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TYPES = ("bigint", "integer", "text", "uuid")


@dataclass(frozen=True, slots=True)
class QuotaTable:
    """Where the definitions are: the table, its columns, and what a subject is called.

    table: its name. id, subject, limit, used, start, end: its columns. subject_type: the SQL type of the subject
    column. prefix: put before a subject column's value to make the subject (`target:` makes `target:42`).
    namespace: of the counters and of the ledger. Raises InvalidArgument for names that need quoting.
    """

    table: str
    namespace: str
    prefix: str = ""
    subject: str = "subject"
    subject_type: str = "bigint"
    id: str = "id"
    limit: str = "quota_limit"
    used: str = "used"
    start: str = "period_start"
    end: str = "period_end"

    def __post_init__(self) -> None:
        Keys(self.namespace)
        for name in (
            self.table,
            self.id,
            self.subject,
            self.limit,
            self.used,
            self.start,
            self.end,
        ):
            if not _NAME.fullmatch(name):
                raise InvalidArgument(
                    f"{name!r} cannot name a table or column of quotas: use small letters, digits and '_'."
                )
        if self.subject_type not in _TYPES:
            raise InvalidArgument(
                f"subject_type is {self.subject_type!r}: give one of {', '.join(_TYPES)}."
            )
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{0,60}", self.prefix):
            raise InvalidArgument(f"prefix is {self.prefix!r}: use letters, digits and '_.:-'.")

    @property
    def active_function(self) -> str:
        """The SQL function that names the quota that rules at this statement."""
        return self._derived("active_v1")

    @property
    def trigger(self) -> str:
        return self._derived("quota_v1")

    @property
    def trigger_arguments(self) -> tuple[str, ...]:
        names = (self.id, self.subject, self.limit, self.start, self.end)
        return (self.namespace, self.prefix, *names)

    def value(self, subject: str) -> str:
        """What the subject column holds for a subject."""
        if not subject.startswith(self.prefix) or subject == self.prefix:
            raise InvalidArgument(f"subject {subject!r} does not begin with {self.prefix!r}.")
        return subject.removeprefix(self.prefix)

    def install_sql(self) -> str:
        """The trigger and the function, and a void tail for each quota that is there already."""
        return self._active_sql() + self._trigger_sql() + self._arm_sql()

    def uninstall_sql(self) -> str:
        return (
            f"DROP TRIGGER IF EXISTS {self.trigger} ON {self.table};\n"
            f"DROP FUNCTION IF EXISTS {self.active_function}({self.subject_type});\n"
        )

    def _derived(self, suffix: str) -> str:
        name = f"{self.table}_{suffix}"
        if len(name) <= 63:
            return name
        digest = sha1(self.table.encode(), usedforsecurity=False).hexdigest()[:8]
        return f"{self.table[:40]}_{digest}_{suffix}"

    def _active_sql(self) -> str:
        # Names of tables and columns were checked when this was made.
        return f"""
CREATE OR REPLACE FUNCTION {self.active_function}(p_subject {self.subject_type})
RETURNS TABLE (quota_id bigint) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT {self.id}::bigint FROM {self.table}
    WHERE {self.subject} = p_subject AND {self.start} <= statement_timestamp()
      AND ({self.end} IS NULL OR statement_timestamp() < {self.end})
    ORDER BY {self.start} DESC LIMIT 1
$$;
"""  # noqa: S608

    def _trigger_sql(self) -> str:
        arguments = ", ".join(f"'{argument}'" for argument in self.trigger_arguments)
        return f"""
CREATE OR REPLACE TRIGGER {self.trigger}
AFTER INSERT OR DELETE OR UPDATE OF {self.id}, {self.subject}, {self.limit}, {self.start}, {self.end}
ON {self.table} FOR EACH ROW EXECUTE FUNCTION quota_redis_definition_v1({arguments});
"""

    def _arm_sql(self) -> str:
        return f"""
LOCK TABLE {self.table} IN SHARE ROW EXCLUSIVE MODE;
SELECT quota_redis_bump_v1('{self.namespace}', '{self.prefix}' || {self.subject}),
       quota_redis_apply_limit_v1('{self.namespace}', {self.id}, {self.limit})
FROM {self.table};
"""  # noqa: S608
