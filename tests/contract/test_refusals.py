"""What was refused is kept in bounded files, and read while they are written."""

from pathlib import Path

import pytest

from ingest.contract.refusals import (
    KEPT,
    Refusal,
    RefusalJournal,
    RefusalOf,
    read_refusals,
    refusals_folder,
    shown,
    shown_uid,
)


def refusal(number: int) -> Refusal:
    return Refusal(
        number, RefusalOf.ASSOCIATION, "CT1", "WRONG", "192.0.2.1", "called-ae-title", "", "receiver.ae_title"
    )


def test_the_last_thousand_are_kept(tmp_path: Path) -> None:
    """However many there were, the last are there, in order, and the files do not grow."""
    journal = RefusalJournal(tmp_path)
    assert read_refusals(tmp_path) == []
    for start in range(0, 5 * KEPT, 700):
        journal.append([refusal(number) for number in range(start, start + 700)])
        found = read_refusals(tmp_path)
        assert found == [refusal(number) for number in range(max(0, start + 700 - KEPT), start + 700)]
    lines = sum(len(path.read_bytes().splitlines()) for path in refusals_folder(tmp_path).iterdir())
    assert lines <= 2 * KEPT


def test_a_new_process_goes_on(tmp_path: Path) -> None:
    """The next start appends to what the last one left, and the bound holds over starts."""
    written = [refusal(number) for number in range(3 * (KEPT - 1))]
    for start in range(0, len(written), KEPT - 1):
        RefusalJournal(tmp_path).append(written[start : start + KEPT - 1])
    assert read_refusals(tmp_path) == written[-KEPT:]
    assert (
        sum(len(path.read_bytes().splitlines()) for path in refusals_folder(tmp_path).iterdir()) <= 2 * KEPT
    )


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_cut_line_costs_itself_only(tmp_path: Path, cut: int) -> None:
    """A kill in the middle of a write leaves half a line; those before and after it are read."""
    RefusalJournal(tmp_path).append([refusal(1), refusal(2)])
    current = refusals_folder(tmp_path) / "current.jsonl"
    current.write_bytes(current.read_bytes()[:-cut])
    RefusalJournal(tmp_path).append([refusal(3)])
    found = [one.at for one in read_refusals(tmp_path)]
    assert found == ([1, 2, 3] if cut == 1 else [1, 3])


def test_what_a_peer_says_is_made_fit_to_be_shown() -> None:
    """An AE title that is none cannot forge a line or move a cursor, and is short."""
    assert shown("CT 1") == "CT 1"
    assert shown("") == ""
    for bad in ("A\n2026", "\x1b[2J", "Ä", "x" * 1000, "back\\slash", "\u202e"):
        text = shown(bad)
        assert text.startswith('"')
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 66
    assert shown_uid("1.2.3") == "1.2.3"
    assert shown_uid("1.2.\x1b") == "(not a UID)"
