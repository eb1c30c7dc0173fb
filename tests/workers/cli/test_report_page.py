"""The page of a day: what a person must not miss is there and wide enough to be seen."""

import re

from workers.cli.report_page import page_of
from workers.ledger.day import Day, SourceDay


def day(*sources: SourceDay) -> Day:
    return Day(
        day="2026-11-27", begin="2026-11-27T00:00:00+01:00", end="2026-11-28T00:00:00+01:00", sources=list(sources),
        silent_sources=[], exceptions=[], unidentified=[], alarms=[],
        instances_by_hour=[sum(one.instances for one in sources)] + [0] * 23,
    )  # fmt: skip


def test_sources_are_summed_up() -> None:
    """Studies and series are not: one study may come from two sources."""
    page = page_of(
        day(
            SourceDay(source="ct-1", studies=2, instances=1200, bytes=5_000, stored=1200),
            SourceDay(source="mr-1", studies=2, instances=34, bytes=6_000, stored=30, quarantined=4),
        )
    )
    (foot,) = re.findall(r"<tfoot>(.*)</tfoot>", page)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", foot)
    assert cells == ["all", "", "", "1\u202f234", "11 kB", "1\u202f230", "0", "0", "4", "0", "0", "0"]
    assert "<tfoot>" not in page_of(day(SourceDay(source="ct-1", instances=1, stored=1)))


def test_a_few_are_seen_beside_many() -> None:
    """One in quarantine among a hundred thousand has a bar."""
    page = page_of(day(SourceDay(source="ct-1", instances=100_001, stored=100_000, quarantined=1)))
    widths = re.findall(r'width="([0-9.]+)"[^>]*><title>ct-1: 1 quarantined', page)
    assert [float(width) >= 2 for width in widths] == [True]


def test_a_day_without_anything_says_so() -> None:
    """Rather than showing empty plots."""
    page = page_of(day())
    assert "nothing was received" in page
    assert "<svg" not in page
