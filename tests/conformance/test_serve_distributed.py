"""`make serve-distributed` brings everything up on one machine, takes an image, and leaves nothing behind."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.pipeline import CORPUS
from tests.support.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("crash"), pytest.mark.timeout(180)]


def test_an_image_sent_to_the_trial_is_counted_as_stored(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as out:
        trial = subprocess.Popen([sys.executable, "-m", "tests.support.trial"], stdout=out, stderr=out)
    try:
        until(lambda: "stop" in said.read_text() or trial.poll() is not None, "the trial", timeout=120)
        text = said.read_text()
        port = re.search(r"receiver +127\.0\.0\.1:(\d+)", text)
        status = re.search(r"^ +(AWS_.* status .*)$", text, re.MULTILINE)
        assert port is not None, text
        assert status is not None, text
        image = CORPUS / "MR2_UNCR.dcm"
        subprocess.run(["dcmsend", "-aec", "DICOM-INGEST", "127.0.0.1", port[1], str(image)], check=True)
        command = f"{status[1]} --json --quick"

        def stored() -> bool:
            shown = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
            return '"stored": 1,' in shown

        until(stored, "the image", timeout=60)
    finally:
        trial.send_signal(signal.SIGINT)
        assert trial.wait(60) == 0
    folder = re.search(r"--config (\S+)/pipeline/config\.toml", said.read_text())
    assert folder is not None
    time.sleep(0.1)
    assert not Path(folder[1]).exists()
