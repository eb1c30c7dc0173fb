"""`dicom-ingest commitments`: the open transactions of one machine, beside a receiver and without one."""

from pathlib import Path

import pytest

from ingest.contract.commitments import Finding
from tests.support.asynchronous import asynchronous
from tests.support.command import run
from tests.support.commitment import open_transaction, until
from tests.support.commitment_bench import ID, REFERENCES, Bench


def test_nothing_was_ever_asked(tmp_path: Path) -> None:
    """A folder without a log has no transactions."""
    assert run(tmp_path, "commitments", "list").out == "no open transactions\n"
    done = run(tmp_path, "commitments", "show", "abcd")
    assert done.code == 1
    assert "0 open transactions begin with abcd" in done.err


@asynchronous
async def test_from_proving_to_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state is shown with what is known; `retry` and `expire` reach the receiver, or wait for it.

    What was decided stays decided where the audit trail cannot be written.
    """
    bench = Bench(tmp_path, retry_first=3600.0, absent_grace=0)
    bench.modality.answers = [None, None]
    bench.finding[REFERENCES[3]] = Finding.SET_APART
    async with bench.running() as engine:
        await bench.ask(engine)
        (found,) = run(tmp_path, "commitments", "list", "--json").json
        assert (found["transaction"], found["state"], found["source"]) == (ID.hex(), "proving", "ct")
        assert run(tmp_path, "commitments", "retry", ID.hex()).code == 1
        bench.prove()
        transaction = open_transaction(engine, ID)
        await until(lambda: transaction.decided is not None)
        await until(lambda: transaction.attempted is not None, engine)
        shown = run(tmp_path, "commitments", "show", ID.hex()[:8]).out
        assert "set apart        1.2.3.3\n" in shown
        assert shown.count("proved  ") == 9
        assert "no association" in run(tmp_path, "commitments", "list").out
        assert run(tmp_path, "commitments", "retry", ID.hex()).code == 0
        await until(lambda: not list((tmp_path / "commitments-requests").iterdir()))
        await until(lambda: bench.modality.tries == 2, engine)
    monkeypatch.setenv("DICOM_INGEST_AUDIT__DESTINATION", "file")
    (tmp_path / "audit").write_bytes(b"")  # no folder
    expired = run(tmp_path, "commitments", "expire", "--yes", ID.hex())
    assert expired.code == 0
    assert "not in the audit trail" in expired.err
    assert "(expire asked for)" in run(tmp_path, "commitments", "list").out
    async with bench.running() as engine:
        await until(lambda: not len(engine.transactions))
        assert run(tmp_path, "commitments", "list").out == "no open transactions\n"
