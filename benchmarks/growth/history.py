"""A database that has seen a million workflows.

The rows are copies of those of a workflow that really ran, made by PostgreSQL itself and told
apart by what lists filter by, so that they have whatever columns the schemas have.
"""

from __future__ import annotations

from collections.abc import Mapping

from cairn_common.persistence import Database

USERS = 1_000
NAMES = 5_000
TEAMS = 20
_ID = "'job' || n % {names} || '-' || n"
_AT = "now() - n * interval '30 seconds'"
_STATUS = (
    "CASE WHEN n % 100 = 0 THEN 'FAILED_CANCELED' WHEN n % 10 = 0 THEN 'FAILED' "
    "ELSE 'COMPLETED' END"
)


def _workflow(id_column: str) -> Mapping[str, str]:
    return {
        id_column: _ID.format(names=NAMES),
        "uuid": "md5(n::text)",
        "name": f"'job' || n % {NAMES}",
        "user_name": f"'user' || n % {USERS}",
        "priority": "CASE n % 3 WHEN 0 THEN 'LOW' WHEN 1 THEN 'NORMAL' ELSE 'HIGH' END",
        "labels": f"jsonb_build_object('team', 'team' || n % {TEAMS})",
        "tags": "CASE WHEN n % 1000 = 0 THEN '{keep}'::text[] ELSE '{}' END",
        "status": _STATUS,
        "submitted_at": _AT,
        "started_at": f"{_AT} + interval '2 seconds'",
        "ended_at": f"{_AT} + interval '9 seconds'",
    }


def _part() -> Mapping[str, str]:
    return {
        "workflow": _ID.format(names=NAMES),
        "uuid": "md5(index || '/' || n)",
        "status": _STATUS,
        "started_at": f"{_AT} + interval '2 seconds'",
        "ended_at": f"{_AT} + interval '9 seconds'",
    }


_TABLES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("api", "submission"): _workflow("workflow"),
    ("engine", "workflow"): _workflow("id"),
    ("engine", "task_group"): _part(),
    ("engine", "group_body"): _part(),
    ("engine", "task"): _part(),
}


async def fill(database: Database, pattern: str, count: int) -> None:
    """Copy the ended workflow `pattern` so often, and let PostgreSQL learn of it.

    The newest copy is half a minute old, the next a minute, and so on.
    """
    for (schema, table), changes in _TABLES.items():
        columns = [
            row["column_name"]
            for row in await database.fetch(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = $1 AND table_name = $2 AND is_generated = 'NEVER'"
                " AND is_identity = 'NO'",
                schema,
                table,
            )
        ]
        if not columns:
            continue  # a table that the schema does not have any more
        key = "id" if "id" in changes else "workflow"
        names = ", ".join(f'"{column}"' for column in columns)
        values = ", ".join(changes.get(column, f'p."{column}"') for column in columns)
        await database.execute(
            f"INSERT INTO {schema}.{table} ({names}) SELECT {values}"
            f" FROM (SELECT * FROM {schema}.{table} WHERE {key} = $1) AS p,"
            f" generate_series(1, {int(count)}) AS n",
            pattern,
            timeout=1800,
        )
        await database.execute(f"VACUUM (ANALYZE) {schema}.{table}", timeout=1800)
