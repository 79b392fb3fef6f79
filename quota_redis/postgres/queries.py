"""Statements apart from how they are sent; with await or without, the logic around them is written once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import psycopg

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PgConnection: TypeAlias = "psycopg.Connection[Any]"
AsyncPgConnection: TypeAlias = "psycopg.AsyncConnection[Any]"


@dataclass(frozen=True, slots=True)
class Query(Generic[T_co]):
    """A statement with its values; `read` makes the result of its first row, None where there is none."""

    text: str
    values: Sequence[Any]
    read: Callable[[Any], T_co]


class Database(Protocol):
    """A connection as logic with await sees it."""

    async def ask(self, query: Query[T]) -> T:
        """The result of a query."""

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction; it commits where its block ends and rolls back where that raises."""


class NowDatabase:
    """A Connection of psycopg, on which nothing is ever awaited."""

    def __init__(
        self, connection: PgConnection, transaction: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._connection = connection
        self._transaction = transaction

    async def ask(self, query: Query[T]) -> T:
        return ask(self._connection, query)

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return _Now(self._transaction())


class LaterDatabase:
    """An AsyncConnection of psycopg."""

    def __init__(self, connection: AsyncPgConnection) -> None:
        self._connection = connection

    async def ask(self, query: Query[T]) -> T:
        cursor = await self._connection.execute(query.text.encode(), query.values)
        return query.read(await cursor.fetchone())

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._connection.transaction()


class _Now(AbstractAsyncContextManager[object]):
    """A context manager that is entered with await and never waits."""

    def __init__(self, manager: AbstractContextManager[object]) -> None:
        self._manager = manager

    async def __aenter__(self) -> object:
        return self._manager.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._manager.__exit__(kind, error, trace)


def ask(connection: PgConnection, query: Query[T]) -> T:
    """The result of a query on a connection of psycopg."""
    return query.read(connection.execute(query.text.encode(), query.values).fetchone())
