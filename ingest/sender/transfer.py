"""Send many files over several associations at once, and say what became of each.

An association that ends takes one file with it; the next file opens another. When none can be opened, or
several in a row end without one file sent, the rest of that batch is not tried: the peer is gone.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiofiles

from ingest.dimse.status import (
    CANNOT_UNDERSTAND,
    COERCION_OF_DATA_ELEMENTS,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    ELEMENTS_DISCARDED,
    INVALID_OBJECT_INSTANCE,
    NOT_AUTHORIZED,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    WARNING_DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    is_failure,
)
from ingest.sender.contexts import Batch, batches
from ingest.sender.files import DicomFile
from ingest.sender.requestor import AssociationFailed, Peer, Requestor

PIECE: Final = 1024 * 1024  # bytes of a file in memory, for each association
_VAIN_ASSOCIATIONS: Final = 3  # successive ones that ended before one file was answered
_LISTED: Final = 1000  # failures kept one by one; the counts are complete


@dataclass
class Summary:
    """What became of the files, by status: those stored, and the failures with their paths, up to a limit."""

    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    stored: list[DicomFile] = field(default_factory=list)
    failed: int = 0
    sent: int = 0
    bytes_sent: int = 0

    def answered(self, file: DicomFile, status: int) -> None:
        """The peer answered a C-STORE."""
        word = status_word(status)
        if is_failure(status):
            self.not_sent(file.path, word)
        else:
            self.statuses[word] += 1
            self.sent += 1
            self.stored.append(file)
            self.bytes_sent += file.size

    def not_sent(self, path: Path, why: str) -> None:
        """A file that is not at the peer."""
        self.statuses[why] += 1
        self.failed += 1
        if len(self.failures) < _LISTED:
            self.failures.append((path, why))


Progress = Callable[[int], None]  # told the bytes of each piece sent


async def send_files(
    peer: Peer, files: Sequence[DicomFile], summary: Summary, *, associations: int, progress: Progress
) -> None:
    """Send all files; each is counted once in ``summary``."""
    for batch in batches(files):
        queue = deque(batch.files)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(associations, len(queue))):
                tasks.create_task(_Lane(peer, batch, queue, summary, progress).run())
        for file in queue:
            summary.not_sent(file.path, "not tried: no association")


class _FileFailed(AssociationFailed):
    """The association ends for the file's sake, whose request is out; the peer is not gone."""


@dataclass
class _Lane:
    """One of the associations at once; opens another when the peer ends it."""

    peer: Peer
    batch: Batch
    queue: deque[DicomFile]
    summary: Summary
    progress: Progress
    vain: int = 0

    async def run(self) -> None:
        while self.queue and self.vain < _VAIN_ASSOCIATIONS:
            self.vain += 1
            file = self.queue.popleft()
            try:
                async with Requestor(self.peer, self.batch.contexts) as requestor:
                    await self._send(requestor, file)
                    while self.queue and not requestor.has_ended:
                        file = self.queue.popleft()
                        await self._send(requestor, file)
            except AssociationFailed as error:
                self.summary.not_sent(file.path, str(error))
                if isinstance(error, _FileFailed):
                    self.vain = 0

    async def _send(self, requestor: Requestor, file: DicomFile) -> None:
        context = requestor.context_for(file.sop_class_uid, file.transfer_syntax_uid)
        if context is None:
            self.summary.not_sent(file.path, "SOP class or transfer syntax not accepted by the peer")
            return
        # An association may end in the middle of a file, which is closed then, not whenever the interpreter comes by.
        async with contextlib.aclosing(self._pieces(file)) as pieces:
            response = await requestor.store(context, file.sop_class_uid, file.sop_instance_uid, pieces)
        self.vain = 0
        self.summary.answered(file, response.status)

    async def _pieces(self, file: DicomFile) -> AsyncGenerator[memoryview]:
        """The data set.

        Raises:
            _FileFailed: it is not there any more, or not as it was when it was found.
        """
        try:
            async with aiofiles.open(file.path, "rb") as source:
                await source.seek(file.offset)
                left = file.size
                while left:
                    wanted = min(PIECE, left)
                    piece = await source.read(wanted)
                    # Also before the last piece, without which the peer has no instance.
                    if len(piece) < wanted or not file.is_still(source.fileno()):
                        raise _FileFailed("the file has changed since it was found")
                    left -= wanted
                    self.progress(wanted)
                    yield memoryview(piece)
        except OSError as error:
            raise _FileFailed(f"the file cannot be read any more: {error.strerror}") from None


def status_word(status: int) -> str:
    """A C-STORE status as PS3.4 B.2.3 and PS3.7 Annex C name them."""
    # A range is what its first code has in front of its zeros: A7xxH, but CxxxH.
    ranges = (_STATUS_RANGES.get(status & mask) for mask in (0xFF00, 0xF000))
    name = _STATUS_NAMES.get(status) or next(filter(None, ranges), "")
    return f"{status:04X}H {name}".rstrip()


_STATUS_NAMES: Final = {
    SUCCESS: "success",
    INVALID_OBJECT_INSTANCE: "invalid SOP instance",
    SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    NOT_AUTHORIZED: "not authorized",
    PROCESSING_FAILURE: "processing failure",
    COERCION_OF_DATA_ELEMENTS: "stored, elements coerced",
    ELEMENTS_DISCARDED: "stored, elements discarded",
    WARNING_DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "stored, data set does not match SOP class",
}
_STATUS_RANGES: Final = {
    OUT_OF_RESOURCES: "out of resources",
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "data set does not match SOP class",
    CANNOT_UNDERSTAND: "cannot understand",
}
