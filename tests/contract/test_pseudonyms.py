"""Keyed hashes: who is one person and who is two, and a key that is made once and kept to itself."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.contract.pseudonyms import NOBODY, NoKey, Pseudonyms
from ingest.contract.settings import Settings
from ingest.contract.settings_sources import WrongSettings, load_settings

KEY = "k" * 32
SOURCES = {
    "north": {"ae_titles": ["CT1", "CT2"], "issuer": "NORTH"},
    "south": {"ae_titles": ["CT9"], "issuer": "SOUTH"},
    "clinic": {"ae_titles": ["US1", "US2"]},
    "office": {"ae_titles": ["US9"]},
}


def pseudonyms(**ledger: object) -> Pseudonyms:
    return Pseudonyms(Settings.model_validate({"sources": SOURCES, "ledger": {"key": KEY} | ledger}))


def test_an_issuer_tells_people_apart() -> None:
    """12345 of two hospitals is two people; of one hospital one, whichever source sends it, and with or without (0010,0021)."""
    made = pseudonyms()
    north = made.patient("12345", "", "CT1")
    assert north == made.patient("12345", "", "CT2") == made.patient("12345", "NORTH", "CT9")
    assert north.scope == "issuer"
    assert north != made.patient("12345", "", "CT9")
    assert made.patient("12345", "SOUTH", "CT1") == made.patient("12345", "", "CT9")


def test_without_an_issuer_a_number_matches_within_its_source_only() -> None:
    """All AE titles of a source are one; a title that no source has is a source alone; none is an issuer's."""
    made = pseudonyms()
    clinic = made.patient("12345", "", "US1")
    assert clinic == made.patient("12345", "", "US2")
    assert clinic.scope == "source:clinic"
    others = [made.patient("12345", "", title) for title in ("US9", "UNKNOWN", "CT1")]
    others.append(made.patient("12345", "source:clinic", "US1"))  # an issuer that calls itself so
    assert len({clinic.digest, *(other.digest for other in others)}) == 5


def test_accession_numbers_are_the_sources() -> None:
    """And no Patient IDs."""
    made = pseudonyms()
    assert made.accession("A1", "CT1") == made.accession("A1", "CT2") != made.accession("A1", "CT9")
    assert made.accession("A1", "CT1") != made.patient("A1", "", "CT1").digest
    assert made.accession("", "CT1") == ""
    assert made.patient("", "NORTH", "CT1") == NOBODY


def test_everything_a_number_can_stand_for() -> None:
    """What `find` looks for, and within what each was found."""
    made = pseudonyms()
    found = made.patients("12345", "", ["UNKNOWN", "CT1"])
    assert sorted(found.values()) == [
        "ae UNKNOWN",
        "issuer NORTH",
        "issuer SOUTH",
        "source clinic",
        "source office",
    ]
    assert made.patients("12345", "SOUTH", ["UNKNOWN"]) == {made.patient("12345", "", "CT9"): "issuer SOUTH"}
    assert len(made.accessions("A1", [])) == 4


def test_another_key_makes_other_hashes() -> None:
    """So nobody without it can try out numbers; a hash says nothing of its value's length."""
    one, other = pseudonyms(), pseudonyms(key="l" * 32)
    assert one.patient("1", "", "CT1") != other.patient("1", "", "CT1")
    assert len(one.patient("1" * 64, "", "CT1").digest) == len(one.patient("1", "", "CT1").digest) == 32
    assert pseudonyms(key="m" * 200).patient("1", "", "CT1").digest  # longer than BLAKE2 takes


def test_one_machine_makes_its_key_once(tmp_path: Path) -> None:
    """Whoever comes first; for its owner's eyes; and nothing else is left in the folder."""
    settings = Settings.model_validate({"data": tmp_path / "data"})
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: Pseudonyms(settings).patient("1", "", "CT1"), range(64)))
    assert len(set(made)) == 1
    (key,) = (tmp_path / "data").iterdir()
    assert key.name == "ledger.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_key_file_is_read(tmp_path: Path) -> None:
    """As the key itself, its line end left out."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    made = pseudonyms(key="", key_file=str(tmp_path / "key"))
    assert made.patient("1", "", "CT1") == pseudonyms().patient("1", "", "CT1")


@pytest.mark.parametrize("content", [b"", b"\n", b"ZZSHORT\n"])
def test_a_key_file_without_a_whole_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """As a short key is: it is named and not repeated, and patients are not hidden by less, or left out unsaid."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(OSError, match="at least 32 characters") as caught:
        pseudonyms(key="", key_file=str(tmp_path / "key")).load_key()
    assert caught.value.filename == str(tmp_path / "key")
    assert "ZZSHORT" not in str(caught.value)


def test_a_key_file_may_hold_any_bytes(tmp_path: Path) -> None:
    """As of a generator of random ones."""
    (tmp_path / "key").write_bytes(bytes(range(200, 256)))
    made = pseudonyms(key="", key_file=str(tmp_path / "key"))
    assert made.patient("1", "", "CT1") != pseudonyms().patient("1", "", "CT1")


def test_many_machines_without_a_key_make_no_hashes(tmp_path: Path) -> None:
    """Each would have its own, and they would not match: nothing is found instead of half."""
    settings = Settings.model_validate({"data": tmp_path, "log": {"kind": "kafka"}})
    made = Pseudonyms(settings)
    assert made.patient("1", "", "CT1") == NOBODY
    assert made.accession("1", "CT1") == ""
    with pytest.raises(NoKey, match=r"ledger\.key"):
        made.patients("1", "", [])
    assert not list(tmp_path.iterdir())


def test_a_short_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    """The message names it, and does not repeat it."""
    file = tmp_path / "settings.toml"
    file.write_text('[ledger]\nkey = "ZZSHORT"\n')
    with pytest.raises(WrongSettings) as caught:
        load_settings(file, {})
    (problem,) = caught.value.problems
    assert problem.startswith("ledger.key")
    assert "ZZSHORT" not in problem
