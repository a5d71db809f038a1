"""The verbs that ask and load. None of them changes the store or holds up a run."""

from __future__ import annotations

from featurestore.opened import OpenStore
from featurestore.progress import Silent
from featurestore.query import QueryResult
from featurestore.status import Status


class Reading(OpenStore):
    """The half of `FeatureStore` that reads."""

    def status(self) -> Status:
        """Return how far the store is, and what is missing and why."""
        from featurestore.status import status

        return status(self._context(Silent()))

    def sql(self, query: str) -> QueryResult:
        """Answer a question about the store; the README lists the views.

        Raises:
            QueryError: it is not a question, or DuckDB refused it.
        """
        from featurestore.query import sql

        return sql(self._context(Silent()), query)
