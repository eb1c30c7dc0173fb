"""`find`, `report` and `get --study` where the question or the answer's place is no good one: one line, no traceback."""

import asyncio
import datetime as dt
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
