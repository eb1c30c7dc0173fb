"""A disk that cannot give back the first bytes of what it keeps, head and all: damage like any other."""

import asyncio
from pathlib import Path

import pytest

from ingest.contract.records import Place
from tests.support.bad_place import PAGE, BadPlace
from tests.support.command import run
from tests.support.placing import CT, placing
from workers.storage.layout import object_key

UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


def placed(data: Path, upload: int = 0) -> tuple[Place, str]:
    """What became of an upload of the CT."""

    async def scenario() -> tuple[Place, str]:
        async with placing(data) as one:
            one.sequence = upload
            outcome = await one.file(CT)
            return outcome.place, outcome.reason

    return asyncio.run(scenario())


@pytest.mark.parametrize("offset", [0, PAGE])
def test_a_resend_repairs_what_has_become_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """It finds the object, and takes its place; it does not wait for what nobody will ever read."""
    placed(tmp_path)
    BadPlace(tmp_path / "store" / str(object_key(UID)), offset, monkeypatch)
    done = run(tmp_path, "get", "--sop", UID, str(tmp_path / "x.dcm"))
    assert done.code == 1
    assert done.err == f"Error: {UID}: cannot be read: Input/output error\n"
    # Of a duplicate the head alone is read.
    assert placed(tmp_path, 1) == ((Place.DUPLICATE, "") if offset else (Place.STORED, "repaired"))


@pytest.mark.parametrize("offset", [0, PAGE])
def test_verify_sets_aside_what_has_become_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """Once, however often it is looked at, and the account stays right."""
    placed(tmp_path)
    path = tmp_path / "store" / str(object_key(UID))
    BadPlace(path, offset, monkeypatch)
    (problem,) = run(tmp_path, "verify", "--json").json["problems"]
    assert (problem["damaged"], not problem["set_aside"]) == (True, False)
    assert "Input/output error" in problem["problem"]
    assert not path.exists()
    (entry,) = run(tmp_path, "quarantine", "list", "--json").json
    assert (entry["key"], entry["reason"]) == (problem["set_aside"], "damaged")
    assert len(list((tmp_path / "store" / "moves").glob("*/*.json"))) == 1
    rebuilt = run(tmp_path, "ledger", "rebuild")
    assert rebuilt.code == 0, rebuilt.err
    assert rebuilt.err.startswith("1 have no readable manifest") is (offset == 0)
    assert placed(tmp_path, 1) == (Place.STORED, "repaired")
    again = run(tmp_path, "verify", "--json").json
    assert (again["problems"], again["set_aside_before"]) == ([], 1)
