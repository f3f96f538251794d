"""Sets up a NATS server for Cairn with many clusters: `python -m cairn_common.security.accounts`.

    python -m cairn_common.security.accounts FOLDER --cluster north --cluster south

writes into FOLDER, which must be new or empty:

| file | for whom |
| --- | --- |
| `accounts.conf` | nats-server: `include` it in its configuration |
| `services.creds` | api, engine and log-relay: CAIRN_NATS_CREDENTIALS |
| `bridge-<cluster>.creds` | the cluster's bridge: CAIRN_NATS_CREDENTIALS |
| `tasks-<cluster>.json` | the cluster's bridge: CAIRN_TASK_KEY |
| `system.creds` | whoever watches the server |
| `operator.seed` | nobody who is online: keep it to add clusters |

Tasks live in an account of their own, without JetStream. What they say below `task.own.` can be
heard in Cairn's account; nothing that is said there can be heard, or said, by a task.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cairn_common.events.subjects import PLACEMENTS, token
from cairn_common.requests import ATTEMPTS_SUBJECT, LOG_RESEND_SUBJECT, WORKFLOWS_SUBJECT
from cairn_common.security.natsjwt import Claims, Key, credentials
from cairn_common.security.passes import PassKey, subjects_of, subjects_of_all

_FACTS = ("accepted", "held", "scheduled", "started", "finished")
_UNBOUND = {"subs": -1, "data": -1, "payload": -1}
_MOST_SUBSCRIPTIONS = 64
_MOST_BYTES = 256 * 1024
"""What one task may send in one message."""
_ANSWER_NANOSECONDS = 30_000_000_000


def setup(clusters: Sequence[str], now: int) -> dict[str, str]:
    """All files, by name.

    Args:
        clusters: the names of the clusters, each one token of a subject.
        now: seconds since the epoch.

    Raises:
        ValueError: a name that is no token.
    """
    operator, system, cairn, tasks = Key.operator(), Key.account(), Key.account(), Key.account()
    scopes = {cluster: Key.account() for cluster in clusters}
    tokens = {
        system: operator.token(system.public, "SYSTEM", _account(jetstream=False), now=now),
        cairn: operator.token(cairn.public, "CAIRN", _cairn(tasks), now=now),
        tasks: operator.token(tasks.public, "TASKS", _tasks(scopes), now=now),
    }
    root = operator.token(
        operator.public, "cairn", {"type": "operator", "system_account": system.public}, now=now
    )

    def user(account: Key, name: str, permissions: Claims) -> str:
        key = Key.user()
        claims = {"type": "user", **_UNBOUND, **permissions}
        return credentials(account.token(key.public, name, claims, now=now), key)

    files = {
        "accounts.conf": _configuration(root, system, tokens),
        "services.creds": user(cairn, "services", {}),
        "system.creds": user(system, "system", {}),
        "operator.seed": f"{operator.seed}\n",
    }
    for cluster, scope in scopes.items():
        name = f"bridge-{cluster}"
        files[f"{name}.creds"] = user(cairn, name, bridge_permissions(cluster))
        key = PassKey(account=tasks.public, seed=scope.seed)
        files[f"tasks-{cluster}.json"] = f"{key.model_dump_json(indent=2)}\n"
    return files


def bridge_permissions(cluster: str) -> Claims:
    """What the bridge of a cluster may do: hear what is for its cluster, and report facts."""
    inbox = f"{PLACEMENTS.name}.bridge-{token(cluster)}"
    return {
        "pub": {
            "allow": [
                *(f"task.{fact}.>" for fact in _FACTS),
                "task.log.>",
                f"cluster.heartbeat.{cluster}",
                f"cluster.resources.{cluster}",
                "dead.bridge.>",
                ATTEMPTS_SUBJECT,
                WORKFLOWS_SUBJECT,
                # Every service sees to it that the streams are there.
                "$JS.API.INFO",
                *(f"$JS.API.STREAM.{verb}.*" for verb in ("CREATE", "UPDATE", "INFO")),
                f"$JS.API.CONSUMER.INFO.{inbox}",
                f"$JS.API.CONSUMER.CREATE.{inbox}.>",
                f"$JS.API.CONSUMER.DURABLE.CREATE.{inbox}",
                f"$JS.API.CONSUMER.DELETE.{inbox}",
                f"$JS.API.CONSUMER.MSG.NEXT.{inbox}",
                f"$JS.ACK.{inbox}.>",
            ]
        },
        "sub": {"allow": [f"_INBOX.bridge-{cluster}.>", LOG_RESEND_SUBJECT]},
        "resp": {"max": 1, "ttl": _ANSWER_NANOSECONDS},
    }


def _account(*, jetstream: bool) -> Claims:
    storage = -1 if jetstream else 0
    limits = {
        **_UNBOUND,
        **dict.fromkeys(("imports", "exports", "conn", "leaf"), -1),
        "wildcards": True,
        **dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), storage),
    }
    return {"type": "account", "limits": limits}


def _cairn(tasks: Key) -> Claims:
    heard = {
        "name": "tasks",
        "subject": subjects_of_all(),
        "account": tasks.public,
        "type": "stream",
    }
    return {**_account(jetstream=True), "imports": [heard]}


def _tasks(scopes: Mapping[str, Key]) -> Claims:
    return {
        **_account(jetstream=False),
        "exports": [{"name": "tasks", "subject": subjects_of_all(), "type": "stream"}],
        "signing_keys": [_scope(cluster, key) for cluster, key in scopes.items()],
    }


def _scope(cluster: str, key: Key) -> Claims:
    own = {"allow": [subjects_of(cluster)]}
    return {
        "kind": "user_scope",
        "key": key.public,
        "role": f"task of {cluster}",
        "template": {
            "pub": own,
            "sub": own,
            "subs": _MOST_SUBSCRIPTIONS,
            "data": -1,
            "payload": _MOST_BYTES,
        },
    }


def _configuration(operator: str, system: Key, tokens: Mapping[Key, str]) -> str:
    lines = [
        f"operator: {operator}",
        f"system_account: {system.public}",
        "resolver: MEMORY",
        "resolver_preload: {",
        *(f"  {key.public}: {text}" for key, text in tokens.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cairn_common.security.accounts",
        description="Write the accounts of a NATS server and the credentials of Cairn's parts.",
    )
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    parser.add_argument("--cluster", action="append", required=True, help="a cluster's name")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    try:
        files = setup(options.cluster, int(time.time()))
    except ValueError as error:
        parser.error(f"--cluster: {error}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty: what is in use there would be lost")
    for name, text in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text, "utf-8")
    sys.stderr.write(f"wrote {len(files)} files to {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
