"""Keys and signed tokens of NATS's decentralized authentication.

An operator vouches for accounts, an account for its users; who connects shows a token and proves,
by signing a challenge, that the key in it is his. The server asks nobody: it knows the operator's
and the accounts' tokens from its configuration. Source: NATS documentation, "JWT Authentication",
and the claims of github.com/nats-io/jwt/v2.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import nkeys  # type: ignore[import-untyped]
import orjson

Claims = dict[str, Any]
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class Key:
    """A key pair. `public` names whom it belongs to; `seed` is the secret."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self._pair = nkeys.from_seed(bytearray(seed, "ascii"))
        self.public: str = self._pair.public_key.decode("ascii")

    @classmethod
    def operator(cls) -> Key:
        """A new key for an operator."""
        return cls._new(nkeys.PREFIX_BYTE_OPERATOR)

    @classmethod
    def account(cls) -> Key:
        """A new key for an account, or one by which an account signs."""
        return cls._new(nkeys.PREFIX_BYTE_ACCOUNT)

    @classmethod
    def user(cls) -> Key:
        """A new key for a user."""
        return cls._new(nkeys.PREFIX_BYTE_USER)

    @classmethod
    def _new(cls, kind: int) -> Key:
        return cls(nkeys.encode_seed(os.urandom(32), kind).decode("ascii"))

    def token(
        self, subject: str, name: str, claims: Claims, *, now: int, expires: int | None = None
    ) -> str:
        """A token signed by this key.

        Args:
            subject: the public key that it is about.
            name: a name for people, which permissions may refer to as `{{name()}}`.
            claims: the `nats` part.
            now: seconds since the epoch.
            expires: likewise, when the token ends; never if None.
        """
        body: Claims = {
            "iat": now,
            "iss": self.public,
            "sub": subject,
            "name": name,
            "nats": {**claims, "version": 2},
        }
        if expires is not None:
            body["exp"] = expires
        digest = hashlib.sha512(orjson.dumps(body)).digest()[:32]
        body["jti"] = base64.b32encode(digest).rstrip(b"=").decode("ascii")
        signed = f"{_part(orjson.dumps(_HEADER))}.{_part(orjson.dumps(body))}"
        return f"{signed}.{_part(self._pair.sign(signed.encode('ascii')))}"


def credentials(token: str, user: Key) -> str:
    """The text of a credentials file, as every NATS client reads it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )


def claims_of(token: str) -> Claims:
    """What a token says; its signature is not checked."""
    body = token.split(".")[1]
    claims: Claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
