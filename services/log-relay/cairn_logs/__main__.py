"""`python -m cairn_logs`."""

from cairn_common.process import run_service
from cairn_logs.service import LogRelayService
from cairn_logs.settings import LogRelaySettings

if __name__ == "__main__":
    settings = LogRelaySettings()
    run_service("log-relay", settings, LogRelayService(settings))
