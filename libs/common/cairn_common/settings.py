"""What the settings of all services have in common.

Each service has one model that derives from `ServiceSettings`. A value comes from an environment
variable `CAIRN_<NAME>`, else from the YAML file that `CAIRN_SETTINGS_FILE` names, else from the
default here. Nothing else in a service reads the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)


class ServiceSettings(BaseSettings):
    """The settings that every service has."""

    model_config = SettingsConfigDict(env_prefix="CAIRN_", extra="ignore")

    nats_url: str = Field(
        default="nats://127.0.0.1:4222", description="NATS, with credentials if it asks for them."
    )
    nats_credentials: Path | None = Field(
        default=None, description="A credentials file, for NATS with decentralized accounts."
    )
    database_url: str = Field(
        default="postgresql://127.0.0.1:5432/cairn", description="PostgreSQL, as libpq writes it."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        default="auto", description="auto is pretty on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP traces endpoint; no span is made without one."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get("CAIRN_SETTINGS_FILE")
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file)
