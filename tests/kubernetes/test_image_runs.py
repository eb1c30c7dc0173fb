"""The image as it is built: what is in it, and that it runs as pods run it. Needs root, buildah, debootstrap and runc."""

import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.container_image import Container, Image, built_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # s; it installs 40 packages twice

# Bytes; an image that grows by half has something in it that nobody meant.
LARGEST = 600 * 2**20
NEVER = {"apt", "apt-get", "dpkg", "gcc", "cc", "ld", "make", "perl", "su", "mount"}
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:11120/{}', timeout=4).status)"
STARTED = 300.0  # s; two on a quiet machine


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built once for all tests."""
    with built_image() as found:
        yield found


@pytest.fixture
def report(
    record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> Callable[[str, float], None]:
    """Tells a figure to whoever looks on, and to the machine-readable report."""

    def tell(name: str, value: float) -> None:
        record_property(name, value)
        with capsys.disabled():
            sys.stdout.write(f"\n{name}: {value}\n")

    return tell


def until_it_says(container: Container, path: str) -> float:
    """Seconds until the admin port answers with 200."""
    begun = time.monotonic()
    while time.monotonic() - begun < STARTED:
        assert container.process.poll() is None, container.log.read_text()
        if container.python(ASK.format(path)).stdout.strip() == "200":
            return time.monotonic() - begun
        time.sleep(0.05)
    raise AssertionError(container.log.read_text())


def test_it_has_nothing_that_installs_compiles_or_grants(image: Image) -> None:
    """Neither programs nor bits."""
    files = [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]
    programs = {path.name for path in files if path.parent.name in {"bin", "sbin"}}
    assert "python3" in {path.name for path in (image.root / "usr/bin").iterdir()}
    assert not {name for name in programs if name in NEVER or name.startswith("pip")}
    assert not [path for path in files if path.stat().st_mode & 0o6000]


def test_its_size(image: Image, report: Callable[[str, float], None]) -> None:
    """Is reported, and has a bound."""
    report("image_megabytes", round(image.size / 1e6))
    assert 0 < image.size < LARGEST


def test_it_starts_read_only_and_ends_when_told(image: Image, report: Callable[[str, float], None]) -> None:
    """As a user without rights, ready by the admin port, its own health command content, and exit code 0 after SIGTERM."""
    with image.run("receiver") as container:
        seconds = until_it_says(container, "readyz")
        report("ready_after_seconds", round(seconds, 1))
        assert container.python(image.config["Healthcheck"]["Test"][3]).returncode == 0
        assert (
            container.python("import os; print(os.getuid())").stdout.strip()
            == image.config["User"].partition(":")[0]
        )
        refused = container.python("open('/opt/dicom-ingest/one', 'w')")
        assert "Read-only file system" in refused.stderr
        rights = container.python("print(open('/proc/1/status').read())").stdout
        assert "CapEff:\t0000000000000000" in rights
        assert "NoNewPrivs:\t1" in rights
        assert container.terminate() == 0
