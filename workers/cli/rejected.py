"""What was refused last: associations, contexts, instances, each with the setting that would change it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from ingest.contract.command_columns import aligned
from ingest.contract.refusals import KEPT, Refusal

_HEADINGS: Final = ("time (UTC)", "times", "refused", "calling", "called", "address", "reason", "subject")


def rejected_lines(refusals: Sequence[Refusal]) -> Iterator[str]:
    """A table for people, the newest last; under each reason's last row, what to change."""
    if not refusals:
        yield "nothing was refused"
        return
    yield f"the last {KEPT} refusals at most, the newest last"
    yield from aligned([_HEADINGS, *(refusal_row(refusal) for refusal in refusals)])
    yield "\nwhat to change"
    remedies = {refusal.reason: refusal.remedy for refusal in refusals}
    yield from (f"  {_plain(reason):<24}{_plain(remedy)}" for reason, remedy in sorted(remedies.items()))


def refusal_row(refusal: Refusal) -> tuple[str, ...]:
    """The cells of one refusal."""
    at = datetime.fromtimestamp(refusal.at / 1e9, UTC)
    return (
        at.strftime("%Y-%m-%d %H:%M:%S"),
        str(refusal.times),
        refusal.refused,
        *map(_plain, (refusal.calling_ae_title, refusal.called_ae_title, refusal.address)),
        *map(_plain, (refusal.reason, refusal.subject)),
    )


def _plain(text: str) -> str:
    """The file may have been written by another hand."""
    return text if text.isascii() and text.isprintable() else ascii(text)
