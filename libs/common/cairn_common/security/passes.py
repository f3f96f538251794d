"""Credentials of its own for each attempt of a task: short-lived, and good for its subjects only.

Whoever runs in a task's pod may publish and subscribe below `task.own.<cluster>.<pass>.`, where
the pass is named after the attempt, and nowhere else. The permissions do not stand in the token:
they belong to the key that signs it (a scoped signing key), and the server fills in the name. So a
cluster's bridge, which holds the key, can let tasks of its own cluster speak for themselves, and
cannot make a user that may do more, even when somebody breaks into it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cairn_common.events.subjects import token
from cairn_common.security.natsjwt import Key, credentials

_ROOT = "task.own"


class PassKey(BaseModel):
    """The file that a cluster's bridge holds: by which key it signs, and for which account."""

    model_config = ConfigDict(extra="forbid")

    account: str = Field(description="The public key of the account that tasks belong to.")
    seed: str = Field(description="The secret seed of the cluster's scoped signing key.")


class PassIssuer:
    """Makes passes.

    Args:
        key: see `PassKey`.
        seconds: how long a pass is good for.
    """

    def __init__(self, key: PassKey, seconds: float) -> None:
        self._account = key.account
        self._signing = Key(key.seed)
        self.seconds = seconds

    @classmethod
    def from_file(cls, path: Path, seconds: float) -> PassIssuer:
        """By the file that `cairn_common.security.accounts` wrote.

        Raises:
            OSError, ValueError: there is no such file, or it is none of these.
        """
        return cls(PassKey.model_validate_json(path.read_text("utf-8")), seconds)

    def issue(self, name: str, now: float) -> str:
        """A credentials file.

        Args:
            name: the pass's name, one token of a subject.
            now: seconds since the epoch.
        """
        user = Key.user()
        claims = {"type": "user", "issuer_account": self._account}
        expires = int(now + self.seconds)
        text = self._signing.token(user.public, token(name), claims, now=int(now), expires=expires)
        return credentials(text, user)


def subjects_of(cluster: str, name: str = "{{name()}}") -> str:
    """All subjects of one pass; without a name, as the signing key's permissions say it."""
    return f"{_ROOT}.{token(cluster)}.{name}.>"


def subjects_of_all() -> str:
    """The subjects of all tasks."""
    return f"{_ROOT}.>"
