"""Presentation contexts from the files found."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ingest.sender.contexts import MAXIMUM_CONTEXTS, batches, pair_of
from ingest.sender.files import DicomFile

pairs = st.tuples(st.integers(0, 20), st.integers(0, 20))


def file(number: int, sop_class: int, syntax: int) -> DicomFile:
    return DicomFile(Path(str(number)), f"1.2.{sop_class}", f"1.3.{number}", f"1.4.{syntax}", 0, 2, 0)


@given(st.lists(pairs, max_size=400))
def test_every_file_has_its_own_context_once(wanted: list[tuple[int, int]]) -> None:
    """Each file is in one batch, in order, and that batch has one context of just its class and syntax."""
    files = [file(number, *pair) for number, pair in enumerate(wanted)]
    sent: list[DicomFile] = []
    for batch in batches(files):
        assert 1 <= len(batch.contexts) <= MAXIMUM_CONTEXTS
        ids = [context.context_id for context in batch.contexts]
        assert ids == list(range(1, 2 * len(ids), 2))
        offered = [(context.abstract_syntax, *context.transfer_syntaxes) for context in batch.contexts]
        assert len(set(offered)) == len(offered)
        assert {pair_of(member) for member in batch.files} == set(offered)
        assert list(batch.files) == sorted(batch.files, key=files.index)
        sent += batch.files
    assert sorted(sent) == sorted(files)


def test_more_than_128_pairs_take_several_associations() -> None:
    """300 pairs are three kinds of association."""
    assert [len(batch.contexts) for batch in batches(file(n, n, 0) for n in range(300))] == [128, 128, 44]
