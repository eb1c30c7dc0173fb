"""Stores by URL: what is taken, what is refused, and that no secret is ever shown."""

from pathlib import Path

import pytest

from ingest.contract.settings import Settings
from ingest.contract.settings_sources import WrongSettings, load_settings
from ingest.contract.store_urls import StoreUrl, parse_store_url


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("file:///srv/my%20images", Path("/srv/my images"), "/srv/my images"),
        ("s3://images", StoreUrl("s3", "", "images", ""), "s3://images"),
        ("s3://images/a/b/", StoreUrl("s3", "", "images", "a/b"), "s3://images/a/b"),
        (
            "s3://images?endpoint=http://127.0.0.1:9000&region=eu-1&profile=archive",
            StoreUrl("s3", "", "images", "", "http://127.0.0.1:9000", "eu-1", "archive"),
            "s3://images",
        ),
        ("gs://images/x", StoreUrl("gs", "", "images", "x"), "gs://images/x"),
        (
            "az://account/container/x/y",
            StoreUrl("az", "account", "container", "x/y"),
            "az://account/container/x/y",
        ),
    ],
)
def test_what_is_taken(text: str, expected: object, shown: str) -> None:
    """Each scheme, with and without a prefix; shown without how to get there."""
    assert parse_store_url(text) == expected
    assert str(expected) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/srv/images", "s3:///x", "http://images", "file://host/x", "file:relative", "az://account", "s3://b#x",
        "s3://b?secret=x", "gs://b?endpoint=http://x", "s3://b?endpoint=ftp://x",
        "s3://key:hidden@b", "s3://b?endpoint=http://key:hidden@x",
    ],
)  # fmt: skip
def test_what_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is allowed, and without repeating credentials."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_store_url(text)
    assert "hidden" not in str(caught.value)
    monkeypatch.setenv("DICOM_INGEST_STORE__URLS", text)
    with pytest.raises(WrongSettings) as wrong:
        load_settings()
    assert "hidden" not in str(wrong.value)
    assert "store.urls (environment DICOM_INGEST_STORE__URLS)" in str(wrong.value)


def test_folders_and_urls_stand_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories first; DATA/store only where nothing is named."""
    assert Settings().store_locations == (Path("data/store"),)
    monkeypatch.setenv("DICOM_INGEST_STORE__DIRECTORIES", "/a,/b")
    monkeypatch.setenv("DICOM_INGEST_STORE__URLS", "s3://images, file:///c")
    settings = load_settings().settings
    assert settings.store_locations == (
        Path("/a"), Path("/b"), StoreUrl("s3", "", "images", ""), Path("/c"),
    )  # fmt: skip
    monkeypatch.delenv("DICOM_INGEST_STORE__DIRECTORIES")
    monkeypatch.setenv("DICOM_INGEST_STORE__URLS", "s3://images")
    assert load_settings().settings.store_locations == (StoreUrl("s3", "", "images", ""),)
