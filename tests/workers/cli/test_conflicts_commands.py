"""`conflicts list|show|resolve` as an administrator and his scripts meet them."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.datasets import data_set_bytes
from tests.support.placing import CT, placing

HOUR = 3_600_000_000_000  # nanoseconds
UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
OTHER = data_set_bytes(CT).replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    async def scenario() -> None:
        async with placing(tmp_path, encode=False) as one:
            await one.file(CT)
            await one.data_set(OTHER, CT, calling_ae_title="CONSOLE")

    asyncio.run(scenario())
    return tmp_path


def test_list_and_show(data: Path) -> None:
    """The promised keys, the class as the reason, the tags that differ, and no value of the data set."""
    (entry,) = run(data, "conflicts", "list", "--json").json
    assert entry.keys() >= {"sop_instance_uid", "source_digest", "reason", "path"}
    assert (entry["sop_instance_uid"], entry["reason"]) == (UID, "identity")
    shown = run(data, "conflicts", "show", UID)
    assert "(0010,0010)" in shown.out
    assert "CompressedSamples" not in shown.out
    both = run(data, "conflicts", "show", UID, "--json").json
    assert both["current"]["calling_ae_title"] == "MODALITY"
    assert both["others"][0]["key"] == entry["key"]
    assert UID in run(data, "conflicts", "list").out


def test_resolve(data: Path) -> None:
    """The preferred content is what `get` hands out; both sources are named as acknowledged; again says so."""
    (entry,) = run(data, "conflicts", "list", "--json").json
    prefer = entry["source_digest"][:12]
    assert run(data, "conflicts", "resolve", UID, "--prefer", prefer).code == 2
    done = run(data, "conflicts", "resolve", UID, "--prefer", prefer, "--reason", "corrected")
    assert done.code == 0
    assert "acknowledged to MODALITY" in done.err
    assert "acknowledged to CONSOLE" in done.err
    target = data / "got.dcm"
    assert run(data, "get", "--sop", UID, str(target)).code == 0
    assert data_set_bytes(target) == OTHER
    (entry,) = run(data, "conflicts", "list", "--json").json
    assert entry["reason"] == "superseded"
    again = run(data, "conflicts", "resolve", UID, "--prefer", prefer, "--reason", "corrected")
    assert again.code == 1
    assert run(data, "verify").code == 0


def test_resolved_back_by_another_clock(data: Path) -> None:
    """An administrator's machine that was an hour ahead, as any may be: the last decision counts in the ledger, too."""
    assert run(data, "ledger", "rebuild").code == 0
    for _ in range(2):
        prefer = run(data, "conflicts", "list", "--json").json[0]["source_digest"]
        assert run(data, "conflicts", "resolve", UID, "--prefer", prefer, "--reason", "r").code == 0
        by_place = {one["place"]: one for one in run(data, "find", "--sop", UID, "--json").json}
        assert by_place.keys() == {"stored", "conflict"}
        stored = run(data, "conflicts", "show", UID, "--json").json["current"]
        assert by_place["stored"]["upload_id"] == stored["upload_id"]
        for path in (data / "store" / "moves").rglob("*.json"):
            move = json.loads(path.read_bytes())
            path.write_text(json.dumps(move | {"at": move["at"] + HOUR}))
        run(data, "find", "--sop", UID)


@pytest.mark.parametrize(
    ("uid", "prefer", "code"),
    [(UID, "0" * 64, 1), (UID, "xyz", 2), ("1.2.3", "0" * 64, 1), ("../1", "0" * 64, 2), (UID, "0" * 7, 2)],
)
def test_what_cannot_be_resolved(data: Path, uid: str, prefer: str, code: int) -> None:
    """1 for what is not there, 2 for what is no UID or digest."""
    done = run(data, "conflicts", "resolve", uid, "--prefer", prefer, "--reason", "r")
    assert done.code == code
    assert len(run(data, "conflicts", "list", "--json").json) == 1
