"""Each test of manifests runs on every overlay, as kustomize renders it."""

import re
from pathlib import Path

import pytest

from ingest.contract.settings import Settings
from ingest.contract.settings_sources import CONFIG_VARIABLE, load_settings
from tests.support.kustomize import OVERLAYS, Overlay, rendered


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    """One overlay."""
    return rendered(request.param)


@pytest.fixture
def settings(overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the overlay's pods, by the program's own loader."""
    for name, value in overlay.settings_map().items():
        if name != CONFIG_VARIABLE:
            monkeypatch.setenv(name, mounted(tmp_path, value) if name.endswith("_FILE") else value)
    text = overlay.settings_file()
    file = tmp_path / "dicom-ingest.toml"
    file.write_text(re.sub(r'_file = "(.*)"', lambda found: f'_file = "{mounted(tmp_path, found[1])}"', text))
    return load_settings(file).settings


def mounted(root: Path, path: str) -> str:
    """A file that is mounted into pods at ``path``: an empty one below ``root``, as the loader looks whether it is there."""
    file = root / path.removeprefix("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return str(file)
