"""Which presentation contexts a set of files needs, and so how many different associations: pure.

Each file goes out as it is, so each pair of SOP class and transfer syntax is a context of its own. An
association has at most 128 (PS3.8 9.3.2.2: odd ids of one byte); more pairs take more associations.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from ingest.association import PresentationContext
from ingest.sender.files import DicomFile

MAXIMUM_CONTEXTS: Final = 128

Pair = tuple[str, str]  # SOP Class UID, Transfer Syntax UID


class Batch(NamedTuple):
    """Files that one kind of association can carry."""

    contexts: tuple[PresentationContext, ...]
    files: tuple[DicomFile, ...]


def batches(files: Iterable[DicomFile]) -> list[Batch]:
    """All files, each in one batch, in their order; contexts in the order in which the files first need them."""
    found: dict[Pair, list[tuple[int, DicomFile]]] = {}
    for number, file in enumerate(files):
        found.setdefault(pair_of(file), []).append((number, file))
    pairs = list(found)
    groups = [pairs[start : start + MAXIMUM_CONTEXTS] for start in range(0, len(pairs), MAXIMUM_CONTEXTS)]
    return [
        Batch(
            contexts_of(group),
            tuple(file for _, file in sorted(member for pair in group for member in found[pair])),
        )
        for group in groups
    ]


def contexts_of(pairs: Iterable[Pair]) -> tuple[PresentationContext, ...]:
    """One context for each pair, with odd ids from 1."""
    return tuple(
        PresentationContext(2 * number + 1, sop_class, (transfer_syntax,))
        for number, (sop_class, transfer_syntax) in enumerate(pairs)
    )


def pair_of(file: DicomFile) -> Pair:
    """What the file needs of an association."""
    return file.sop_class_uid, file.transfer_syntax_uid
