"""`python -m cairn_api`."""

from cairn_api.service import ApiService
from cairn_api.settings import ApiSettings
from cairn_common.process import run_service

if __name__ == "__main__":
    settings = ApiSettings()
    run_service("api", settings, ApiService(settings))
