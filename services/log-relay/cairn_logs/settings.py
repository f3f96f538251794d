"""The log relay's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cairn_common.settings import ServiceSettings


class LogRelaySettings(ServiceSettings):
    """Where logs are kept."""

    home: Path = Field(default=Path("~/.cairn"), description="Where the log files are kept below.")
    log_dir: Path | None = Field(
        default=None, description="The folder of log files; <home>/logs if unset."
    )

    @property
    def archive_path(self) -> Path:
        """The folder of log files, absolute."""
        return (self.log_dir or self.home / "logs").expanduser().absolute()
