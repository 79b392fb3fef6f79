"""What the services of shargain.offers raise."""


class ServiceError(Exception):
    """Base of all errors that the services raise on purpose."""


class InvalidQuota(ServiceError, ValueError):  # noqa: N818
    """A definition that makes no quota; `field` names the value at fault."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidBatch(ServiceError, ValueError):  # noqa: N818
    """A batch that cannot be created; `index` and `field` name the value at fault."""

    def __init__(self, message: str, *, index: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.field = field


class UnknownTarget(ServiceError, LookupError):  # noqa: N818
    """No such target, or one that is not active."""


class UnknownQuota(ServiceError, LookupError):  # noqa: N818
    """No such quota."""


class QuotaInUse(ServiceError):  # noqa: N818
    """A quota that was used cannot be deleted; close it instead."""


class InsideTransaction(ServiceError):  # noqa: N818
    """Offers cannot be created inside transaction.atomic(): its locks and its clock would hold up all others."""


class ServiceUnavailable(ServiceError):  # noqa: N818
    """PostgreSQL does not answer. Nothing was decided about what was not answered: ask again."""
