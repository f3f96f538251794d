"""What of an attempt's words must not be seen: the values of its credentials.

They are read from the cluster when they are needed, and held as long as a log is followed.
"""

from __future__ import annotations

import base64

from cairn_bridge.drivers.kubernetes.api import Api, Kind
from cairn_bridge.drivers.kubernetes.core.masking import NO_MASK, Mask


class Masks:
    """Reads Secrets of a namespace."""

    def __init__(self, api: Api, namespace: str | None) -> None:
        self._api = api
        self._kind = Kind("v1", "secrets", namespace)

    async def of(self, secrets: str | None) -> Mask:
        """Hides what stands in Secrets, whose names are given as a pod's annotation has them.

        Raises:
            ApiError, aiohttp.ClientError, TimeoutError, OSError: they cannot be read now.
        """
        if not secrets:
            return NO_MASK
        values: list[str] = []
        for name in secrets.split(","):
            secret = await self._api.get(self._kind, name) or {}
            data = secret.get("data") or {}
            values += [base64.b64decode(each).decode("utf-8", "replace") for each in data.values()]
        return Mask(values)
