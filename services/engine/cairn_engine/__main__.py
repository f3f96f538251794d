"""`python -m cairn_engine`."""

from cairn_common.process import run_service
from cairn_engine.service import EngineService
from cairn_engine.settings import EngineSettings

if __name__ == "__main__":
    settings = EngineSettings()
    run_service("engine", settings, EngineService(settings))
