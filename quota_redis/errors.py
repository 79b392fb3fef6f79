"""Every error of the package. An outcome that is to be expected (denied, no quota) is a value, not an error.

try:
    decision = counters.consume("team:7", 3, key=job_id)
except Unavailable:      # Redis did not answer, or lost what it knew: nobody knows whether it counted;
    ...                  # ask again with the same key, or decide what an outage means to you
"""


class QuotaError(Exception):
    """Base of all errors that quota_redis raises on purpose."""


class InvalidArgument(QuotaError, ValueError):  # noqa: N818  a name says what is wrong
    """A value that no quota can work with; the message names it and the cure."""


class Unavailable(QuotaError):  # noqa: N818
    """A server did not answer, or cannot do what it is asked; the driver's error is the cause."""


class StateLost(Unavailable):
    """Redis answers, but knows nothing of the subject: never defined, evicted, or lost in a restart."""


class Garbled(Unavailable):
    """Redis answers what no script of ours says: something else wrote its keys, or it is not our Redis."""


class KeyReused(QuotaError):  # noqa: N818
    """An idempotency key came again with another amount: two different calls share one key."""


class SlotConflict(QuotaError):  # noqa: N818
    """The ledger already has one of the slots: Redis handed out a number twice. Roll back, go direct."""


class QuotaMoved(QuotaError):  # noqa: N818
    """PostgreSQL says that another quota rules now, or none. Roll back, ask again."""


class Contention(Unavailable):
    """So many transactions wanted the same slots that the bounded number of attempts ran out."""


class InsideTransaction(QuotaError):  # noqa: N818
    """Called in a transaction of the caller's, which would hold locks and stop the clock for all others."""


class WrongIsolation(QuotaError):  # noqa: N818
    """The connection's isolation level is not READ COMMITTED, under which alone the ledger is exact."""


class NotInstalled(QuotaError):  # noqa: N818
    """A trigger, function, table or extension is missing: without it limits would not hold."""


class QuotaInUse(QuotaError):  # noqa: N818
    """A quota that was used cannot be deleted or moved to another subject; close it instead."""
