"""The audit trail of a data folder, as a reader sees it."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.support.audit_schema import check_message
from tests.support.lines import whole_lines

# RFC 5424 6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA BOM MSG
LINE = re.compile(
    rb"<8[2-5]>1 \d{4}-\d\d-\d\dT[\d:.]+Z \S+ dicom-ingest \d+ DICOM\+RFC3881 - \xef\xbb\xbf(<AuditMessage>.*</AuditMessage>)\Z"
)


def lines_of(data: Path) -> list[bytes]:
    files = sorted((data / "audit").glob("trail-*.log"))
    return [line for file in files for line in whole_lines(file)]


def parsed(line: bytes) -> ET.Element:
    """The message of a line; both must be valid."""
    found = LINE.match(line)
    assert found, line
    return check_message(found[1])


def trail_of(data: Path) -> list[ET.Element]:
    return [parsed(line) for line in lines_of(data)]


def kinds(messages: list[ET.Element]) -> list[tuple[str, ...]]:
    """Of each message the codes of its event and its types."""
    return [
        (
            message.findall(".//EventID")[0].attrib["csd-code"],
            *(one.attrib["csd-code"] for one in message.iter("EventTypeCode")),
        )
        for message in messages
    ]
