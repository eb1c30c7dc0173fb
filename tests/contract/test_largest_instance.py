"""Settings: no instance is taken that the stores named could never put in its place."""

from pathlib import Path

import pytest

from ingest.contract.largest_instance import LARGEST_ON_S3
from ingest.contract.settings import GiB
from ingest.contract.settings_sources import WrongSettings, load_settings, source_of

LIMIT = "receiver.maximum_instance_size"
S3, OTHER = "s3://images", "gs://images"


def loaded_limit(folder: Path, urls: list[str], limit: int | None, source_limit: int = 0) -> int:
    """The limit in effect where the file names ``urls``, that limit, and one of a source."""
    file = folder / "settings.toml"
    given = "" if limit is None else f"maximum_instance_size = {limit}"
    file.write_text(
        f"[receiver]\n{given}\n[store]\nurls = {urls}\n"
        f"[sources.ct1]\nae_titles = ['CT1']\nmaximum_instance_size = {source_limit}\n"
    )
    return load_settings(file).settings.receiver.maximum_instance_size


@pytest.mark.parametrize("urls", [[S3], [OTHER, S3]])
def test_with_s3_the_limit_is_what_s3_can_put_in_its_place(tmp_path: Path, urls: list[str]) -> None:
    """S3 copies 5 GiB at once: also without a word in the settings nothing larger is acknowledged."""
    assert loaded_limit(tmp_path, urls, None) == LARGEST_ON_S3 < 5 * GiB
    assert loaded_limit(tmp_path, urls, 1 * GiB, LARGEST_ON_S3) == 1 * GiB


def test_what_is_shown_is_what_is_in_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show` calls it a default: nobody has set it."""
    monkeypatch.setenv("DICOM_INGEST_STORE__URLS", S3)
    loaded = load_settings()
    assert loaded.settings.receiver.maximum_instance_size == LARGEST_ON_S3
    assert source_of(loaded, LIMIT) == "default"


@pytest.mark.parametrize("urls", [[], [OTHER], ["file:///srv/store"]])
def test_other_stores_take_more(tmp_path: Path, urls: list[str]) -> None:
    """A folder has no such limit."""
    assert loaded_limit(tmp_path, urls, None) == 8 * GiB
    assert loaded_limit(tmp_path, urls, 0, 100 * GiB) == 0


@pytest.mark.parametrize(
    ("limit", "source_limit", "named"),
    [(LARGEST_ON_S3 + 1, 0, LIMIT), (0, 0, LIMIT), (None, 6 * GiB, "sources.ct1.maximum_instance_size")],
)
def test_a_larger_limit_is_refused_with_s3(
    tmp_path: Path, limit: int | None, source_limit: int, named: str
) -> None:
    """No limit is the largest of all; a source's own limit counts before the receiver's."""
    with pytest.raises(WrongSettings) as wrong:
        loaded_limit(tmp_path, [S3], limit, source_limit)
    (problem,) = wrong.value.problems
    assert problem.startswith(f"{named}: given {source_limit or limit}; allowed: ")
    assert f"to {LARGEST_ON_S3}" in problem
