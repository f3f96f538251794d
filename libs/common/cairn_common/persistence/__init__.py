"""PostgreSQL: connections and migrations, the same for every owner of a schema."""

from cairn_common.persistence.database import (
    TRANSIENT,
    Database,
    Row,
    connect_database,
    sqlalchemy_url,
)
from cairn_common.persistence.migrations import migrate

__all__ = ["TRANSIENT", "Database", "Row", "connect_database", "migrate", "sqlalchemy_url"]
