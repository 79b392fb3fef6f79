from typing import Protocol


class DefineQuota(Protocol):
    def __call__(
        self,
        limit: int | None,
        *,
        subject: str = "team:7",
        id: int = 1,  # noqa: A002
    ) -> str: ...
