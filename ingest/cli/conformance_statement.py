"""The conformance statement of an installation, in the order of PS3.2 Annex N: all of it from the code and the settings.

A sentence that depends on a setting is made from that setting, and each list is the one that the code goes by.
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import version

from ingest.cli.conformance_commitment import commitment, requestors
from ingest.cli.conformance_network import network
from ingest.cli.conformance_storage import durability, storage
from ingest.contract.settings import Settings
from ingest.contract.settings_keys import settings_fields, unit_of

_TABLES = ("receiver", "transcode", "commitment")  # of the settings, that a peer can notice


def statement(settings: Settings) -> Iterator[str]:
    """The whole of it, as lines."""
    head = ["# DICOM Conformance Statement: dicom-ingest", "", *_overview(settings)]
    rest = [
        line
        for section in (_introduction, _model, _services, _configuration, network, _security, _annexes)
        for line in ("", *section(settings))
    ]
    yield from head
    yield ""
    yield from _contents([*head, "## 2. Table of contents", *rest])
    yield from rest


def _contents(lines: Iterable[str]) -> Iterator[str]:
    yield "## 2. Table of contents"
    yield ""
    for line in lines:
        hashes, _, title = line.partition(" ")
        if hashes in ("##", "###"):
            yield f"{'  ' * (len(hashes) - 2)}- {title}"


def _overview(settings: Settings) -> Iterator[str]:
    served = "yes" if settings.commitment.enabled else "no: commitment.enabled is off"
    yield "## 1. Overview"
    yield ""
    yield "Instances are received, checked, transcoded where that is proved to lose nothing, and stored once."
    yield "There is no query, no retrieval, no worklist, no printing and no DICOM media."
    yield ""
    yield "### 1.1 Content and transfer"
    yield ""
    yield "Every standard storage SOP class is received and kept whole (7.2.1.2). None is created, read for people, or displayed."
    yield ""
    yield "### 1.2 DIMSE services"
    yield ""
    yield "| service | as SCP | as SCU |"
    yield "|---|---|---|"
    yield "| Verification | yes | `dicom-ingest echo` |"
    yield "| Storage | yes, all classes of 7.2.1.2 | `dicom-ingest send`, for trying |"
    yield f"| Storage Commitment Push Model | {served} | `dicom-ingest send --commit`, for trying |"
    yield "| workflow management, Query/Retrieve, Print Management | no | no |"
    yield ""
    yield "### 1.3 DICOM Web Services, media, real-time video"
    yield ""
    yield "None (1.3 to 1.5 of the template)."
    yield ""
    yield "### 1.6 De-identification profiles"
    yield ""
    yield "None: nothing is removed."
    yield ""
    yield "### 1.7 Specific character sets"
    yield ""
    yield "All: text is kept as the bytes that came, and never converted."


def _introduction(_settings: Settings) -> Iterator[str]:
    yield "## 3. Introduction"
    yield ""
    yield f"- **Revision.** Version {version('dicom-ingest')}, with the settings of this installation; `CHANGELOG.md` says what has changed."
    yield "- **Audience.** Who connects a modality, a PACS or an outside facility, and knows DICOM."
    yield "- **Remarks.** The order is that of PS3.2 Annex N, not all of its boilerplate. It is made by the program from its code"
    yield "  and settings, and is no proof that two systems work together: try that, with `dicom-ingest send --commit`, too."
    yield "- **Terms and abbreviations.** Those of PS3.1 to PS3.8: AE application entity, SCU and SCP service class user and"
    yield "  provider, SOP service-object pair, UID unique identifier. *Log*: what keeps an instance between its C-STORE-RSP and"
    yield "  its place. *Source*: the senders that a table `[sources.NAME]` of the settings has. *Quarantine*, *conflict lane*:"
    yield "  where an instance waits for an administrator."
    yield "- **References.** PS3.2, PS3.4 Annex B and J, PS3.5, PS3.7, PS3.8, PS3.15 Annex A.5 and B.12."


def _model(settings: Settings) -> Iterator[str]:
    yield "## 4. Implementation model"
    yield ""
    yield "### 4.1 Application entities and data flow"
    yield ""
    yield "```text"
    yield "modality --C-STORE--> AE --> log --> workers --> store | duplicate's count | conflict lane | quarantine"
    yield "         <--success--      durable                 |"
    yield "         --N-ACTION-->                             | proof"
    yield "         <--N-EVENT-REPORT-- AE <------------------+"
    yield "```"
    yield ""
    yield "#### 4.1.1 Functional definition"
    yield ""
    yield f"One application entity, `{settings.receiver.ae_title}`, receives instances into a log. Workers, which speak no"
    yield "DICOM, check each and put it into the store, a duplicate's count, the conflict lane or quarantine."
    yield durability(settings)


def _services(settings: Settings) -> Iterator[str]:
    yield "## 5. Service and interoperability description"
    yield ""
    yield "### 5.1 Mapping of services to application entities"
    yield ""
    yield f"All of 1.2 are those of `{settings.receiver.ae_title}`. Of 5.2 the sections that are not here, and 5.3 to 5.6, do not apply."
    yield ""
    yield "### 5.2 DIMSE services"
    yield ""
    yield from storage(settings)
    yield ""
    yield from commitment(settings)
    yield ""
    yield "### 5.7 Specific character sets"
    yield ""
    yield "See 1.7. Specific Character Set (0008,0005) is kept, right or wrong."


def _configuration(settings: Settings) -> Iterator[str]:
    yield "## 6. Configuration"
    yield ""
    yield "### 6.1 General configuration parameters"
    yield ""
    yield "What peers can notice; `dicom-ingest config show` has every setting:"
    yield ""
    yield "| setting | value | meaning |"
    yield "|---|---|---|"
    values = settings.model_dump(mode="json")
    for key, field in settings_fields().items():
        section, _, name = key.partition(".")
        if section in _TABLES:
            yield f"| `{key}` | {_words(values[section][name], unit_of(field))} | {field.description} |"
    yield ""
    yield "### 6.2 Configuration of DIMSE services"
    yield ""
    yield from requestors(settings)
    yield ""
    yield "### 6.6 Configuration of the audit trail"
    yield ""
    yield _audit(settings)


def _words(value: object, unit: str) -> str:
    if isinstance(value, list):
        return _joined(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {unit}".strip() or "none"


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def _audit(settings: Settings) -> str:
    audit = settings.audit
    if audit.destination == "syslog":
        return f"Messages of PS3.15 A.5 go to {audit.repository} by syslog over TLS (RFC 5425; PS3.15 A.6)."
    if audit.destination == "file":
        return "Messages of PS3.15 A.5 are kept in a file of this machine (`audit.destination`)."
    return "Off: `audit.destination` is none."


def _security(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    yield "## 8. Security"
    yield ""
    yield "### 8.1 Introduction"
    yield ""
    yield "`SECURITY.md` says what is withstood, and what is not."
    yield ""
    yield "### 8.2 External network requirements"
    yield ""
    yield "None but the addresses in the settings: no LDAP, no DHCP. Clocks should be kept right by the machine (NTP)."
    yield ""
    yield "### 8.3 TCP port configuration"
    yield ""
    if receiver.host:
        yield f"- {receiver.host}, port {receiver.port}, without TLS (`receiver.host`, `receiver.port`)"
    for name, listener in settings.listeners.items():
        secured = "with TLS" if listener.certificate_file else "without TLS"
        yield f"- {listener.host}, port {listener.port}, {secured} (`listeners.{name}`)"
    yield ""
    yield "### 8.4 Security profiles"
    yield ""
    secure = [name for name, listener in settings.listeners.items() if listener.certificate_file]
    if secure:
        yield f"TLS by the BCP 195 profile (PS3.15 B.12) on {len(secure)} of {len(settings.listeners) + bool(settings.receiver.host)}"
        yield "addresses; on others DICOM goes over TCP, neither encrypted nor authenticated. No attribute confidentiality"
    else:
        yield "DICOM goes over TCP without TLS: it is neither encrypted nor authenticated here. No attribute confidentiality"
    yield "profile is applied, and no digital signature is made, checked or broken: signed instances are stored as received."
    yield ""
    yield "### 8.5 User identity negotiation"
    yield ""
    yield "Not proposed, not verified, and not answered (PS3.7 D.3.3.7)."


def _annexes(_settings: Settings) -> Iterator[str]:
    yield "## Annex A"
    yield ""
    yield "- **A.A Information object definitions.** No instance is created, so no IOD is specialised or extended."
    yield "- **A.B Structured report content.** None is created or read."
    yield "- **A.C Security details.** See 8."
    yield "- **A.D Mapping of attributes.** None: elements of the data set stay as they came. What this product knows of an"
    yield "  instance is private information of the file meta information (0002,0102), which is no part of the data set."
    yield "- **A.E Code sets.** None."
