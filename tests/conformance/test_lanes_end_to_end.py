"""Quarantine from the wire to an administrator's decision: nothing is lost, and every upload counts once."""

import contextlib
import hashlib
import io
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from ingest.cli.group import main
from tests.support.acceptance import QUICK, Sender, Sent, gained, send_data_sets, settle
from tests.support.command import run
from tests.support.datasets import data_set_bytes
from tests.support.killing import run_killed_at
from tests.support.manifests import manifest_for
from tests.support.pipeline import Pipeline
from tests.support.scu import CT, ct_data_set, explicit
from tests.support.waiting import until
from workers.storage.part10 import HEAD, decode_head, encode_head

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("lanes")]

ROOT = "1.2.826.0.1.3680043.9.7"
STUDY = explicit(0x20, 0x0D, b"UI", b"1.2.3.4")


def good(number: int, size: int = 2048) -> Sent:
    """A CT image that is too small to be transcoded."""
    uid = f"{ROOT}.{number}"
    return Sent(CT, uid, ct_data_set(uid, size))


def forged(one: Sent) -> bytes:
    """Group 0002 with a manifest of ours that claims to prove the data set behind it, as seen behind our own meta."""
    claim = manifest_for(one.data, sop_class_uid=CT, sop_instance_uid=one.uid, transfer_syntax_uid=one.syntax)
    return encode_head(claim)[132 + 12 :] + one.data


def bad(number: int, name: str) -> Sent:
    """What must go to quarantine."""
    one = good(number)
    data = {
        "group-0000": explicit(0, 0x0002, b"UI", CT.encode()) + one.data,
        "group-0002": explicit(2, 0x0010, b"UI", b"1.2.840.10008.1.2.4.90") + one.data,
        "forged manifest": forged(one),
        "no study": one.data.replace(STUDY, b""),
        "empty study": one.data.replace(STUDY, explicit(0x20, 0x0D, b"UI", b"")),
        "study with a path": one.data.replace(STUDY, explicit(0x20, 0x0D, b"UI", b"../../x")),
        "cut in a value": one.data[:-300],
        "cut in a header": one.data[: one.data.index(struct.pack("<HH", 0x7FE0, 0x10)) + 6],
    }[name]
    return one._replace(data=data)


# Each with its reason: a word from the closed list.
BAD = {
    "group-0000": "group-0000",
    "group-0002": "group-0002",
    "forged manifest": "group-0002",
    "no study": "identity",
    "empty study": "identity",
    "study with a path": "identity",
    "cut in a value": "truncated",
    "cut in a header": "truncated",
}


def in_quarantine(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The entries by source digest."""
    listed: Any = run(pipeline.data, "quarantine", "list", "--json").json
    return {entry["source_digest"]: entry for entry in listed}


def uploads(pipeline: Pipeline) -> int:
    """What the lane holds by its files: entries, and the further uploads that brought their bytes."""
    return sum(entry["repeats"] + 1 for entry in in_quarantine(pipeline).values())


def files_of(pipeline: Pipeline) -> dict[Path, bytes]:
    """The lane as it lies on disk."""
    lane = pipeline.data / "store" / "quarantine"
    return {path: path.read_bytes() for path in lane.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline(tmp_path_factory.mktemp("lanes") / "data", workers=1, environment=QUICK) as running:
        yield running


def test_what_cannot_be_read_or_identified(pipeline: Pipeline) -> None:
    """Acknowledged, kept as received with its reason, never in the store; replay cannot mend it, discard ends it."""
    sent = {name: bad(number, name) for number, name in enumerate(BAD)}
    assert set(send_data_sets(pipeline.port, list(sent.values()))) == {0}
    before = settle(pipeline)
    assert (before["received"], before["quarantined"]) == (len(BAD), len(BAD))
    assert pipeline.objects() == {}
    entries = in_quarantine(pipeline)
    assert {name: entries[one.digest]["reason"] for name, one in sent.items()} == BAD
    for one in sent.values():
        entry = entries[one.digest]
        assert entry["sop_instance_uid"] == one.uid
        kept = Path(entry["path"]).read_bytes()
        head = decode_head(kept[:HEAD])
        assert kept[head.size :] == one.data
        assert head.manifest.calling_ae_title == "TESTER"
        shown: Any = run(pipeline.data, "quarantine", "show", one.digest, "--json").json
        assert shown["manifest"]["source_digest"] == one.digest
        assert shown["detail"]

    # The same again makes no second entry.
    assert set(send_data_sets(pipeline.port, list(sent.values()))) == {0}
    again = settle(pipeline)
    assert gained(before, again) == {"received": len(BAD), "quarantined": len(BAD)}
    assert in_quarantine(pipeline).keys() == entries.keys()

    files = files_of(pipeline)
    replayed = run(pipeline.data, "quarantine", "replay", "--all")
    assert replayed.code == 1
    assert "acknowledged" in replayed.err
    assert files_of(pipeline) == files
    assert gained(again, settle(pipeline)) == {}
    assert run(pipeline.data, "verify", "--json").code == 0

    first, *rest = [one.digest for one in sent.values()]
    assert run(pipeline.data, "quarantine", "discard", first).code == 2, "without a reason"
    assert run(pipeline.data, "quarantine", "discard", "0" * 64, "--reason", "no such entry").code == 1
    discarded = run(pipeline.data, "quarantine", "discard", first, "--reason", "a test of the vendor")
    assert discarded.code == 0
    assert "acknowledged" in discarded.err
    after = settle(pipeline)
    assert gained(again, after) == {"quarantined": -2, "discarded": 2}
    assert run(pipeline.data, "quarantine", "show", first).code == 1
    done = run(pipeline.data, "quarantine", "discard", *rest, "--reason", "all of it", "--json")
    assert done.code == 0
    assert [one["uploads"] for one in done.json] == [2] * len(rest)
    assert settle(pipeline)["discarded"] == 2 * len(BAD)
    assert in_quarantine(pipeline) == {}
    # Sent once more, it is there once more: a discard is about what was received until then.
    assert send_data_sets(pipeline.port, [sent["no study"]]) == [0]
    assert settle(pipeline)["quarantined"] == 1


def test_an_unidentified_patient_is_stored(pipeline: Pipeline) -> None:
    """No name, ID or accession number: emergencies are legal, and the object says so."""
    one = good(500)
    for name in (b"Doe^Jane", b"4711"):
        at = one.data.index(name)
        one = one._replace(data=one.data[: at - 2] + b"\0\0" + one.data[at + len(name) :])
    before = settle(pipeline)
    assert send_data_sets(pipeline.port, [one]) == [0]
    assert gained(before, settle(pipeline)) == {"received": 1, "stored": 1}
    shown: Any = run(pipeline.data, "conflicts", "show", one.uid, "--json").json
    assert shown["current"]["findings"] == [
        f"patient-unidentified {tag}" for tag in ("(0008,0050)", "(0010,0010)", "(0010,0020)")
    ]


def test_replay_of_what_was_set_aside(pipeline: Pipeline) -> None:
    """A damaged object stays; mended in its place it goes back; when a resend has its key it can only be discarded."""
    before = settle(pipeline)
    mended, replaced = good(501), good(502)
    assert set(send_data_sets(pipeline.port, [mended, replaced])) == {0}
    stored = {
        one.uid: pipeline.objects()[one.uid].read_bytes() for one in (mended, replaced) if settle(pipeline)
    }
    for one in (mended, replaced):
        pipeline.objects()[one.uid].write_bytes(stored[one.uid][:-1])
    assert run(pipeline.data, "verify").code == 1
    assert gained(before, settle(pipeline)) == {"received": 2, "quarantined": 2}
    assert run(pipeline.data, "quarantine", "replay", mended.uid).code == 1
    for one in (mended, replaced):
        entry: Any = run(pipeline.data, "quarantine", "show", one.uid, "--json").json
        assert entry["reason"] == "damaged"
        Path(entry["path"]).write_bytes(stored[one.uid])
    assert send_data_sets(pipeline.port, [replaced]) == [0]
    settle(pipeline)
    done = run(pipeline.data, "quarantine", "replay", mended.uid, "--json")
    assert done.code == 0
    assert [one["place"] for one in done.json] == ["stored"]
    assert pipeline.objects()[mended.uid].read_bytes() == stored[mended.uid]
    done = run(pipeline.data, "quarantine", "replay", replaced.uid, "--json")
    assert done.code == 1
    assert [one["place"] for one in done.json] == ["quarantined"]
    assert run(pipeline.data, "quarantine", "discard", replaced.uid, "--reason", "repaired").code == 0
    assert gained(before, settle(pipeline)) == {"received": 3, "stored": 2, "discarded": 1}
    assert run(pipeline.data, "verify").code == 0


def command(pipeline: Pipeline, *arguments: str) -> None:
    """`dicom-ingest` within this process."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main.main([*arguments, "--data", str(pipeline.data)], standalone_mode=False)


def again(pipeline: Pipeline, *arguments: str) -> None:
    """Give a command that was killed once more; there may be nothing left to do."""
    with contextlib.suppress(click.ClickException):
        command(pipeline, *arguments)


# More than the calls that change or sync the file system in one replay or discard of what is sent below.
CALLS = 90
EVERY = pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.long)])

# A worker of a release that could not read what this one can.
OLDER = """
import sys
if "worker" in sys.orig_argv:
    import workers.pipeline
    from workers.errors import Reason, Rejected
    def validate(*_):
        raise Rejected(Reason.LIMIT, 0, "more than an older release could read")
    workers.pipeline.validate = validate
"""


def killed_at_calls(pipeline: Pipeline, sent: Sequence[Sent], *arguments: str) -> int:
    """A command on one entry after the other, killed some calls later each time, while its bytes are resent.

    Returns how often they were; the last ran to its end.
    """
    sender = Sender(pipeline.port)
    for number, one in enumerate(sent):
        sender.begin([one])
        came_through = run_killed_at(
            number * CALLS // len(sent) + 1, partial(command, pipeline, *arguments, key_of(one))
        )
        sender.end()
        if arguments[1] == "replay":
            assert is_kept(pipeline, one)
        if came_through:
            assert number > 10
            sender.close()
            return sender.sent
    raise AssertionError("more calls than instances")


def key_of(one: Sent) -> str:
    """The key of an entry, by which it is found without a look at the others."""
    return f"quarantine/{hashlib.sha256(one.uid.encode()).hexdigest()[:3]}/{one.uid}/{one.digest}"


def is_kept(pipeline: Pipeline, one: Sent) -> bool:
    """Whether an instance is in the store or in quarantine, whole."""
    entry = pipeline.data / "store" / key_of(one)
    stored = pipeline.data / "store" / entry.parts[-3] / f"{one.uid}.dcm"
    return one.data in [data_set_bytes(path) for path in (entry, stored) if path.exists()]


@EVERY
def test_replay_killed_at_any_call_while_resent(tmp_path: Path, every: int) -> None:
    """After an upgrade, entries go to the store with the uploads that repeated them, each counted once, whatever dies."""
    sent = [good(number) for number in range(CALLS // every)]
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "sitecustomize.py").write_text(OLDER)
    data = tmp_path / "data"
    with Pipeline(data, workers=1, environment={**QUICK, "PYTHONPATH": str(tmp_path / "older")}) as older:
        assert set(send_data_sets(older.port, sent)) == {0}
        settle(older)
        assert set(send_data_sets(older.port, sent[::3])) == {0}
        before = settle(older)
        assert before["quarantined"] == before["received"]
    with Pipeline(data, workers=1, environment=QUICK) as pipeline:
        resent = killed_at_calls(pipeline, sent, "quarantine", "replay")
        for one in sent[::2]:
            again(pipeline, "quarantine", "replay", key_of(one))
    again(pipeline, "quarantine", "replay", "--all")  # with nobody else at work
    status = settle(pipeline)
    assert status == {
        "received": before["received"] + resent,
        "stored": len(sent),
        "duplicates": before["received"] + resent - len(sent),
        "conflicts": 0,
        "quarantined": 0,
        "discarded": 0,
        "backlog": 0,
    }
    assert in_quarantine(pipeline) == {}
    assert {uid: data_set_bytes(path) for uid, path in pipeline.objects().items()} == {
        one.uid: one.data for one in sent
    }
    for path in pipeline.objects().values():
        manifest = decode_head(path.read_bytes()[:HEAD]).manifest
        assert manifest.calling_ae_title == "TESTER"
    assert run(pipeline.data, "verify").code == 0


@EVERY
def test_discard_killed_at_any_call_while_resent(pipeline: Pipeline, every: int) -> None:
    """Every upload is discarded or still in quarantine, and counted there once, whatever dies."""
    sent = [good(1000 * every + number) for number in range(CALLS // every)]
    sent = [one._replace(data=one.data[:-8]) for one in sent]
    before = settle(pipeline)
    lane = uploads(pipeline)
    assert set(send_data_sets(pipeline.port, sent)) == {0}
    settle(pipeline)
    assert set(send_data_sets(pipeline.port, sent[::3])) == {0}
    settle(pipeline)
    resent = killed_at_calls(pipeline, sent, "quarantine", "discard", "--reason", "killed")
    received = len(sent) + len(sent[::3]) + resent
    for one in sent:
        again(pipeline, "quarantine", "discard", "--reason", "killed", key_of(one))
    after = settle(pipeline)
    assert gained(before, after) == {"received": received, "discarded": received}
    assert uploads(pipeline) == lane == after["quarantined"]


def test_decisions_about_what_no_checkpoint_has_counted(tmp_path: Path) -> None:
    """An administrator may be quicker than a checkpoint; after a crash of all, each upload counts where it is now."""
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "sitecustomize.py").write_text(OLDER)
    data = tmp_path / "data"
    slow = {"DICOM_INGEST_WORKER__CHECKPOINT_INTERVAL": "3600"}
    older = {**slow, "PYTHONPATH": str(tmp_path / "older")}
    replayed = [good(2000 + number) for number in range(20)]
    with Pipeline(data, workers=1, environment=older) as pipeline:
        assert set(send_data_sets(pipeline.port, replayed * 2)) == {0}
        until(lambda: len(files_of(pipeline)) == 2 * len(replayed), "entries and their repeats")
        # Killed at calls from the first to the last.
        for number, one in enumerate(replayed):
            run_killed_at(4 * number + 1, partial(command, pipeline, "quarantine", "replay", key_of(one)))
        assert pipeline.objects().keys() < {one.uid for one in replayed}
        pipeline.kill()
    first, cut = good(2100), good(2101)
    other = first._replace(data=first.data.replace(b"Doe^Jane", b"Roe^Jane"))
    cut = cut._replace(data=cut.data[:-8])
    with Pipeline(data, workers=1, environment=slow) as pipeline:
        sent = [first, other, other, first, cut, cut]
        assert set(send_data_sets(pipeline.port, sent)) == {0}
        until((data / "store" / key_of(cut)).parent.exists, "the entry")
        until(
            lambda: len(list((data / "store" / "conflicts").rglob("*"))) == 4, "the conflict and its repeat"
        )
        arguments = ["--prefer", other.digest, "--reason", "the right name"]
        command(pipeline, "conflicts", "resolve", first.uid, *arguments)
        command(pipeline, "quarantine", "discard", key_of(cut), "--reason", "of no use")
        pipeline.kill()
    with Pipeline(data, workers=1, environment=QUICK) as pipeline:
        settle(pipeline)
        again(pipeline, "quarantine", "replay", "--all")
        status = settle(pipeline)
    assert data_set_bytes(pipeline.objects()[first.uid]) == other.data
    assert status["received"] == 2 * len(replayed) + len(sent)
    assert status["stored"] == len(replayed) + 1 == len(pipeline.objects())
    listed: Any = run(data, "conflicts", "list", "--json").json
    assert status["conflicts"] == sum(entry["repeats"] + 1 for entry in listed) > 0
    # Whether the second copy of what was cut came before or after the discard is not determined.
    assert status["quarantined"] == uploads(pipeline)
    assert status["quarantined"] + status["discarded"] == 2
    assert status["duplicates"] == status["received"] - sum(
        status[place] for place in ("stored", "conflicts", "quarantined", "discarded")
    )
    assert run(data, "verify").code == 0
