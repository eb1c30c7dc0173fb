"""What all tests share: an environment without the developer's own settings."""

import os

import pytest
from hypothesis import settings

from ingest.contract.settings_sources import ENVIRONMENT_PREFIX

# Machines differ and are shared: no test may fail for being slow. pytest's timeout catches what hangs.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.upper().startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp()))
