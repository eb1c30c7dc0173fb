"""The logs of one machine: read on from any position, and what is gone before it was read is said."""

import asyncio
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.contract.identifiers import UploadId
from tests.support.ledgers import fates, outcome, rows, settings_of
from workers.ledger.consumer import catch_up
from workers.ledger.database import open_database
from workers.ledger.ledger import Ledger
from workers.ledger.spool_logs import SpoolLogs
from workers.log.checkpoint import Announced
from workers.log.outcome_producer import OutcomeProducer


def announce(producer: OutcomeProducer, numbers: range, *, counted: bool = False) -> None:
    announced = [Announced(UploadId.of(1, 1, number), outcome(number)) for number in numbers]
    end = asyncio.run(producer.announce(announced))
    if counted:
        producer.counted(end)


def uids(ledger: Ledger) -> set[str]:
    return {row["sop_instance_uid"] for row in fates(ledger)}


def expected(numbers: range) -> set[str]:
    return {f"1.2.3.{number}" for number in numbers}


def test_logs_are_read_on(tmp_path: Path, ledger: Ledger) -> None:
    """As they grow, by one reader that stays open, and by another that begins where the first was."""
    with closing(SpoolLogs(tmp_path)) as logs:
        assert catch_up(ledger, logs) == 0  # there is none yet
        with (
            closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as one,
            closing(OutcomeProducer(tmp_path / "outcomes" / "11", 0)) as other,
        ):
            announce(one, range(5))
            announce(other, range(5, 8))
            assert catch_up(ledger, logs) == 8
            announce(one, range(8, 10))
            assert catch_up(ledger, logs) == 2
            assert catch_up(ledger, logs) == 0
            announce(one, range(10, 5000))
        with closing(SpoolLogs(tmp_path)) as again:
            assert catch_up(ledger, again) == 4990
            assert catch_up(ledger, again) == 0
        assert catch_up(ledger, logs) == 0
    assert uids(ledger) == expected(range(5000))
    assert ledger.counts()[1] == 0


def test_a_log_that_was_made_anew_is_read_from_its_start(tmp_path: Path, ledger: Ledger) -> None:
    """Though its positions are those of the other."""
    for numbers in (range(5), range(5, 9)):
        with closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer:
            announce(producer, numbers)
        with closing(SpoolLogs(tmp_path)) as logs:
            assert catch_up(ledger, logs) == len(numbers)
        (tmp_path / "outcomes").rename(tmp_path / f"gone-{numbers.start}")
    assert uids(ledger) == expected(range(9))


def test_what_was_recycled_unread_is_told_and_counted(tmp_path: Path, ledger: Ledger) -> None:
    """Once, and the rest is read; nothing is told where all was read in time."""
    with (
        closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer,
        closing(SpoolLogs(tmp_path)) as logs,
    ):
        announce(producer, range(10), counted=True)
        catch_up(ledger, logs)
        for start in range(10, 40010, 4000):
            announce(producer, range(start, start + 4000), counted=True)
        with capture_logs() as lines:
            catch_up(ledger, logs)
            catch_up(ledger, logs)
        told = [line for line in lines if "missed" in line["event"]]
        assert {line["log_level"] for line in told} == {"error"}
        assert ledger.counts()[1] == sum(line["stretches"] for line in told) >= 1
        assert uids(ledger) >= expected(range(10)) | expected(range(38010, 40010))
        assert len(uids(ledger)) < 40010
        before = ledger.counts()[1]
        for start in range(40010, 44010, 1000):
            announce(producer, range(start, start + 1000), counted=True)
            catch_up(ledger, logs)
        assert uids(ledger) >= expected(range(40010, 44010))
        assert ledger.counts()[1] == before


def test_two_readers_of_one_log_enter_each_record_once(tmp_path: Path, database: str) -> None:
    """Whoever comes second reads on behind the first."""
    settings = settings_of(tmp_path, database)
    one, other = Ledger(open_database(settings)), Ledger(open_database(settings))
    with (
        closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer,
        closing(SpoolLogs(tmp_path)) as ones,
        closing(SpoolLogs(tmp_path)) as others,
    ):
        announce(producer, range(100))
        stale = ones.read(one.positions())
        catch_up(other, others)
        assert [one.take(batch) for batch in stale] == [False]
        announce(producer, range(100, 200))
        catch_up(one, ones)
        catch_up(other, others)
    assert rows(one, "SELECT COUNT(*) AS n FROM instances") == [{"n": 200}]
    one.close()
    other.close()


def test_logs_that_cannot_be_read_are_not_no_logs(tmp_path: Path, ledger: Ledger) -> None:
    """Else `ledger rebuild` would put a ledger without them in the place of one that has them."""
    (tmp_path / "outcomes").symlink_to(tmp_path / "outcomes")  # for what root may read always
    with closing(SpoolLogs(tmp_path)) as logs, pytest.raises(OSError, match="symbolic links"):
        catch_up(ledger, logs)


def spoil(data: Path, what: bytes, behind: int = 0) -> None:
    """A bit of the log of partition 0, in its first segment."""
    path = min((data / "outcomes" / "0" / "segments").iterdir())
    whole = bytearray(path.read_bytes())
    whole[whole.index(what, behind)] ^= 1
    path.write_bytes(whole)


def test_what_is_damaged_is_told_and_counted_once(tmp_path: Path, ledger: Ledger) -> None:
    """By whoever reads first, and by none who begins behind it in the same segment: each `find` and `report` does."""
    with closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer:
        for number in range(3):
            announce(producer, range(number, number + 1))
        spoil(tmp_path, b"DICMGRP1", behind=1)
        for number in range(3, 6):
            with closing(SpoolLogs(tmp_path)) as logs:
                catch_up(ledger, logs)
            assert ledger.counts()[1] == 1
            announce(producer, range(number, number + 1))
    assert uids(ledger) == expected(range(5))  # records are made out in the damaged group


def test_a_damaged_record_is_told_and_counted(tmp_path: Path, ledger: Ledger) -> None:
    """Though its group is whole: nobody announces again what is settled."""
    with (
        closing(OutcomeProducer(tmp_path / "outcomes" / "0", 0)) as producer,
        closing(SpoolLogs(tmp_path)) as logs,
    ):
        announce(producer, range(101, 105), counted=True)
        spoil(tmp_path, b"1.2.3.102")
        with capture_logs() as lines:
            catch_up(ledger, logs)
        announce(producer, range(105, 106), counted=True)
        catch_up(ledger, logs)
    assert [line["stretches"] for line in lines if "missed" in line["event"]] == [1]
    assert ledger.counts()[1] == 1
    assert uids(ledger) == {f"1.2.3.{number}" for number in (101, 103, 104, 105)}


def test_a_log_of_before_is_read_again(tmp_path: Path, ledger: Ledger) -> None:
    """Put back from a backup, beside a database that was not: what comes to it is not passed over."""
    outcomes, backup = tmp_path / "outcomes", tmp_path / "backup"
    with closing(OutcomeProducer(outcomes / "0", 0)) as producer:
        announce(producer, range(3))
    shutil.copytree(outcomes, backup)
    with closing(OutcomeProducer(outcomes / "0", 0)) as producer:
        for number in range(3, 10):
            announce(producer, range(number, number + 1))
    with closing(SpoolLogs(tmp_path)) as logs:
        catch_up(ledger, logs)
    shutil.rmtree(outcomes)
    backup.rename(outcomes)
    with closing(OutcomeProducer(outcomes / "0", 0)) as producer:
        announce(producer, range(10, 12))
    with closing(SpoolLogs(tmp_path)) as logs:
        catch_up(ledger, logs)
        assert catch_up(ledger, logs) == 0
    assert uids(ledger) == expected(range(12))
    assert ledger.counts()[1] == 0  # nothing was missed
