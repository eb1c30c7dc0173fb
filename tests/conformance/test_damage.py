"""Stored objects that rot: found, set aside, repaired by whoever sends the instance again; the sum always holds."""

import hashlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.support.acceptance import QUICK, Sent, gained, send_data_sets, settle
from tests.support.command import Done, run
from tests.support.datasets import data_set_bytes, pixels, read
from tests.support.pipeline import Pipeline
from tests.support.scu import CT, ct_data_set

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("damage")]

Damage = Callable[[bytearray], bytes | bytearray]


def flip(position: int) -> Damage:
    def damage(data: bytearray) -> bytearray:
        data[position] ^= 1
        return data

    return damage


def flip_in(text: bytes) -> Damage:
    return lambda data: flip(data.index(text) + len(text) - 1)(data)


# What a disk, a restore or a hand may do to a file. Those of BEHIND cannot be seen in its head and length.
HEAD: dict[str, Damage | None] = {
    "preamble": flip(5),
    "transfer syntax in the file meta": flip_in(b"1.2.840.10008.1.2.4.90"),
    "manifest": flip_in(b'"source_digest'),
    "truncated": lambda data: data[:-200],
    "cut in its head": lambda data: data[:100],
    "longer": lambda data: data + b"\0\0",
    "empty": lambda _: b"",
    "another file": lambda data: hashlib.sha512(data).digest() * (len(data) // 64),
    "deleted": None,
}
BEHIND: dict[str, Damage] = {
    "an element": flip_in(b"Doe^Jane"),
    "a pixel": flip(-500),
    "the last byte": flip(-1),
}
SOUND = ("sound", "as sound")


def instance(name: str) -> Sent:
    """A CT image of its own, large enough to be transcoded."""
    uid = f"1.2.826.0.1.3680043.9.8.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])}"
    return Sent(CT, uid, ct_data_set(uid, 8192))


def other_content(one: Sent) -> Sent:
    return one._replace(data=one.data.replace(b"Doe^Jane", b"Roe^Jane"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline(tmp_path_factory.mktemp("damage") / "data", workers=2, environment=QUICK) as running:
        yield running


def send(pipeline: Pipeline, *sent: Sent) -> None:
    assert set(send_data_sets(pipeline.port, sent)) == {0}


def spoil(pipeline: Pipeline, one: Sent, damage: Damage | None) -> bytes:
    """Damage the stored object, and return what is left of it."""
    path = pipeline.objects()[one.uid]
    if damage is None:
        path.unlink()
        return b""
    spoilt = bytes(damage(bytearray(path.read_bytes())))
    path.write_bytes(spoilt)
    return spoilt


def problems(done: Done) -> set[str]:
    """The instances that verify named."""
    return {problem["sop_instance_uid"] for problem in done.json["problems"]}


def entries_of(pipeline: Pipeline, lane: str, *sent: Sent) -> list[dict[str, str]]:
    """The entries of instances in a lane."""
    uids = {one.uid for one in sent}
    listed: list[dict[str, str]] = run(pipeline.data, lane, "list", "--json").json
    return [entry for entry in listed if entry["sop_instance_uid"] in uids]


def set_aside(pipeline: Pipeline, *sent: Sent) -> dict[str, bytes]:
    """The damaged objects of instances, by their UIDs."""
    entries = entries_of(pipeline, "quarantine", *sent)
    assert {entry["reason"] for entry in entries} <= {"damaged"}
    return {entry["sop_instance_uid"]: Path(entry["path"]).read_bytes() for entry in entries}


def assert_sound(pipeline: Pipeline, one: Sent) -> None:
    """The stored object has the pixels and elements that were sent."""
    sent = pydicom.dcmread(BytesIO(one.data), force=True)
    kept = read(pipeline.objects()[one.uid])
    assert kept.PatientName == sent.PatientName
    samples = pixels(kept)
    assert samples is not None
    assert np.array_equal(samples.ravel(), np.frombuffer(sent.PixelData, np.uint16))


def test_damage_is_found_set_aside_and_repaired(pipeline: Pipeline, tmp_path: Path) -> None:
    """verify names exactly what is damaged; the next resend is stored as repaired; the damaged bytes are kept."""
    instances = {name: instance(name) for name in (*HEAD, *BEHIND, *SOUND)}
    send(pipeline, *instances.values())
    first = settle(pipeline)
    data = pipeline.data
    assert run(data, "verify", "--json", "--processes", "1").code == 0

    damages = {**HEAD, **BEHIND}
    spoilt = {name: spoil(pipeline, instances[name], damage) for name, damage in damages.items()}
    for name, one in instances.items():
        done = run(data, "get", "--sop", one.uid, str(tmp_path / "got.dcm"))
        assert done.code == (0 if name in SOUND else 1), name
        assert (tmp_path / "got.dcm").exists() == (name in SOUND)
        (tmp_path / "got.dcm").unlink(missing_ok=True)
    there = [name for name in damages if name != "deleted"]
    for _ in range(2):  # only reporting changes nothing
        done = run(data, "verify", "--json", "--report-only", "--processes", "1")
        assert done.code == 1
        assert problems(done) == {instances[name].uid for name in there}

    # Head and length are looked at for every copy that arrives; the rest is found by verify.
    send(pipeline, *instances.values())
    second = settle(pipeline)
    aside = len(HEAD) - 1
    assert gained(first, second) == {
        "received": len(instances),
        "stored": len(HEAD) - aside,
        "quarantined": aside,
        "duplicates": len(BEHIND) + len(SOUND),
    }
    assert set_aside(pipeline, *instances.values()) == {
        instances[name].uid: spoilt[name] for name in HEAD if name != "deleted"
    }
    done = run(data, "verify", "--json", "--processes", "1")
    assert done.code == 1
    assert problems(done) == {instances[name].uid for name in BEHIND}
    assert set_aside(pipeline, *instances.values()) == {instances[name].uid: spoilt[name] for name in there}
    assert not {instances[name].uid for name in BEHIND} & set(pipeline.objects())

    send(pipeline, *(instances[name] for name in BEHIND))
    third = settle(pipeline)
    assert gained(second, third) == {"received": len(BEHIND), "quarantined": len(BEHIND)}
    reasons = pipeline.run_json("status")["reasons"]
    assert reasons["stored/repaired"] == len(there)  # type: ignore[index]
    assert run(data, "verify", "--json").code == 0
    for one in instances.values():
        assert_sound(pipeline, one)
    # What is repaired is an object like any other.
    send(pipeline, *instances.values())
    assert gained(third, settle(pipeline)) == {"received": len(instances), "duplicates": len(instances)}


@pytest.mark.parametrize("damage", ["a pixel", "manifest"])
def test_other_content_meets_a_damaged_object(pipeline: Pipeline, damage: str) -> None:
    """It is the only good copy: it takes the key; the first content, sent again, is the conflict then."""
    one = instance(f"other than {damage}")
    other = other_content(one)
    send(pipeline, one)
    before = settle(pipeline)
    spoilt = spoil(pipeline, one, {**HEAD, **BEHIND}[damage])
    send(pipeline, other)
    after = settle(pipeline)
    assert gained(before, after) == {"received": 1, "quarantined": 1}
    assert set_aside(pipeline, one) == {one.uid: spoilt}
    assert_sound(pipeline, other)
    send(pipeline, one, other)
    assert gained(after, settle(pipeline)) == {"received": 2, "conflicts": 1, "duplicates": 1}
    (entry,) = entries_of(pipeline, "conflicts", one)
    assert (entry["reason"], entry["source_digest"]) == ("identity", one.digest)
    assert run(pipeline.data, "verify").code == 0


def test_the_lane_has_what_meets_a_damaged_object(pipeline: Pipeline) -> None:
    """Content that waited as a conflict takes the damaged first's key when sent again; resolving ends the doubt."""
    one = instance("both")
    other = other_content(one)
    send(pipeline, one, other)
    before = settle(pipeline)
    spoil(pipeline, one, HEAD["manifest"])
    send(pipeline, other)
    after = settle(pipeline)
    assert gained(before, after) == {"received": 1, "quarantined": 1}
    assert_sound(pipeline, other)
    # The conflict still waits for a decision, for nobody has made one.
    assert [entry["source_digest"] for entry in entries_of(pipeline, "conflicts", one)] == [other.digest]
    done = run(
        pipeline.data, "conflicts", "resolve", one.uid, "--prefer", other.digest, "--reason", "the only one"
    )
    assert done.code == 0, done.err
    assert entries_of(pipeline, "conflicts", one) == []
    assert gained(after, settle(pipeline)) == {"conflicts": -1, "duplicates": 1}
    assert_sound(pipeline, other)
    assert run(pipeline.data, "verify").code == 0


def test_a_damaged_entry_of_a_lane(pipeline: Pipeline) -> None:
    """Its bytes sent again make a sound entry, and the damaged one is kept aside."""
    one = instance("lane")
    other, cut = other_content(one), instance("cut")
    cut = cut._replace(data=cut.data[:-700])
    send(pipeline, one, other, cut)
    before = settle(pipeline)
    entries = [*entries_of(pipeline, "conflicts", one), *entries_of(pipeline, "quarantine", cut)]
    assert len(entries) == 2
    for entry in entries:
        path = Path(entry["path"])
        path.write_bytes(flip(-1)(bytearray(path.read_bytes())))
    done = run(pipeline.data, "verify", "--json")
    assert done.code == 1
    assert problems(done) == {one.uid, cut.uid}
    moved = settle(pipeline)
    assert gained(before, moved) == {"conflicts": -1, "quarantined": 1}
    send(pipeline, other, cut)
    assert gained(moved, settle(pipeline)) == {"received": 2, "conflicts": 1, "quarantined": 1}
    again = [entry for lane in ("conflicts", "quarantine") for entry in entries_of(pipeline, lane, one, cut)]
    sound = {entry["sop_instance_uid"]: entry for entry in again if entry["reason"] != "damaged"}
    assert data_set_bytes(Path(sound[one.uid]["path"])) == other.data
    assert data_set_bytes(Path(sound[cut.uid]["path"])) == cut.data
    assert len(again) == 4
