"""`find`, `report` and `get --study` where the question or the answer's place is no good one: one line, no traceback."""

import asyncio
import datetime as dt
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ingest.contract.identifiers import UploadId
from tests.support.command import run
from tests.support.ledgers import outcome
from tests.support.placing import CORPUS, placing
from workers.log.checkpoint import Announced
from workers.log.outcome_producer import OutcomeProducer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store, and one outcome."""

    async def scenario() -> None:
        async with placing(tmp_path) as one:
            await one.file(CORPUS / "LittleEndianExplicit_CT_small.dcm")
        with closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer:
            await producer.announce([Announced(UploadId.of(1, 1, 1), outcome(1))])

    asyncio.run(scenario())
    return tmp_path


@pytest.mark.parametrize("key", ["--patient", "--accession"])
def test_nothing_is_no_number_to_look_for(data: Path, key: str) -> None:
    """A script's variable that is not set must not find those without a number, nor those of the other key."""
    done = run(data, "find", key, "")
    assert (done.code, done.out) == (2, "")
    assert "want a number" in done.err


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2262-01-01", "9999-12-31"])
def test_a_day_that_no_instance_can_be_of_is_wrong_usage(data: Path, day: str) -> None:
    """Not an overflow of the database."""
    done = run(data, "report", "--day", day)
    assert (done.code, done.out) == (2, "")
    assert "a day from 1970-01-01 to 2261-12-31" in done.err


@pytest.mark.parametrize("day", [dt.date(1970, 1, 1), dt.date(2261, 12, 31)])
def test_the_first_and_the_last_day_have_a_report(data: Path, day: dt.date) -> None:
    """Without anything."""
    assert run(data, "report", "--day", day.isoformat(), "--json").json["day"] == day.isoformat()


@pytest.mark.parametrize("place", ["none/study", "file"])
def test_a_folder_that_cannot_be_made_is_named(data: Path, place: str) -> None:
    """For a study's files."""
    (data / "file").write_bytes(b"")
    done = run(data, "get", "--study", "1.2.3", str(data / place))
    assert done.code == 1
    assert done.err.startswith(f"Error: {data / place}: ")


def test_what_was_discarded_is_nowhere(tmp_path: Path) -> None:
    """No path is told where nothing is any more."""

    async def scenario() -> None:
        async with placing(tmp_path) as one:
            cut = (CORPUS / "LittleEndianExplicit_CT_small.dcm").read_bytes()[-300:]
            placed = await one.data_set(cut, CORPUS / "LittleEndianExplicit_CT_small.dcm")
        with closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer:
            await producer.announce([Announced(UploadId.of(1, 1, 1), placed)])

    asyncio.run(scenario())
    (entry,) = run(tmp_path, "quarantine", "list", "--json").json
    uid = entry["sop_instance_uid"]
    (fate,) = run(tmp_path, "find", "--sop", uid, "--json").json
    assert Path(fate["path"]).exists()
    assert run(tmp_path, "quarantine", "discard", entry["key"], "--reason", "x").code == 0
    (fate,) = run(tmp_path, "find", "--sop", uid, "--json").json
    assert (fate["place"], fate["path"]) == ("discarded", "")
    assert entry["key"] not in run(tmp_path, "find", "--sop", uid).out


@pytest.mark.parametrize("command", [("find", "--sop", "1.2.3"), ("report",), ("ledger", "rebuild")])
def test_a_damaged_database_is_called_so(data: Path, command: tuple[str, ...]) -> None:
    """And what makes it anew."""
    assert run(data, "report").code == 0
    (data / "ledger" / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    done = run(data, *command)
    assert done.code == 1
    assert "is damaged (SQLITE_NOTADB)" in done.err
    for file in (data / "ledger").iterdir():
        file.unlink()
    assert run(data, "ledger", "rebuild").code == 0
    assert run(data, "report").code == 0


@pytest.mark.parametrize("left", ["", "0123456789abcdef\n"])
def test_a_key_of_which_too_little_is_left_is_named(data: Path, left: str) -> None:
    """As after a restore that was cut: with what is left nobody would be found, and workers would leave patients out."""
    (data / "ledger.key").write_text(left)
    done = run(data, "find", "--patient", "x")
    assert (done.code, done.err) == (
        1,
        f"Error: {data / 'ledger.key'}: it has no key of at least 32 characters\n",
    )


def test_warnings_are_not_in_the_answer(data: Path) -> None:
    """A script reads JSON also where a record is damaged, or the command itself is the one that finds an alarm."""
    moves = data / "store" / "moves" / "000"
    moves.mkdir(parents=True)
    (moves / f"{1:032x}.json").write_bytes(b"{")
    command = [sys.executable, "-m", "ingest", "find", "--sop", "1.2.3.1", "--json", "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [one["place"] for one in json.loads(done.stdout)] == ["stored"]
    assert "a move record is damaged" in done.stderr
