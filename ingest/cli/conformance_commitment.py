"""What the conformance statement says of storage commitment: PS3.4 J.3.6.2 asks for it."""

from collections.abc import Iterator
from typing import Final

from ingest.contract.commitments import Policy
from ingest.contract.settings import Settings, SourceSettings

_PROOFS: Final = {
    Policy.READ: "every stored byte is read back, and length and SHA-256 are those recorded when it was stored",
    Policy.CHECKSUM: "head and length are right, and the store returns now the SHA-256 of the whole object that it verified "
    "when it was written; damage to its disks since is not seen. What has none, as it was written in parts, is read back",
    Policy.MANIFEST: "the object is there with the right head and length; damage behind the head is not seen",
}


def commitment(settings: Settings) -> Iterator[str]:
    """Section 5.2.6."""
    yield "#### 5.2.6 Storage Commitment"
    yield ""
    if not settings.commitment.enabled:
        yield "Not served: `commitment.enabled` is off, and the presentation context is refused. A success of C-STORE is no"
        yield "commitment in the sense of PS3.4 Annex J."
        return
    yield from _operations(settings)
    for part in (_promise, _notifications):
        yield ""
        yield from part(settings)


def _operations(settings: Settings) -> Iterator[str]:
    limits = settings.commitment
    yield "##### 5.2.6.1 Operations (N-ACTION)"
    yield ""
    yield "For any SOP class of 7.2.1.2, in one transaction or several. A request is durable before it is answered. One that"
    yield "comes again with the same Transaction UID and instances is the same request, and leads to one report."
    yield f"At most {limits.maximum_references} references and {limits.maximum_request} bytes a request, and"
    yield f"{limits.maximum_open} transactions that are not reported yet. Storage Media File-Set ID and UID are ignored."


def _promise(settings: Settings) -> Iterator[str]:
    limits = settings.commitment
    stores = len(settings.store_locations)
    spread = (
        "in the one store" if stores == 1 else f"in one of {stores} stores, among which instances are spread"
    )
    yield "##### 5.2.6.2 What is promised (PS3.4 J.3.6.2.1)"
    yield ""
    yield f"- **Proof.** Success is said of an instance only after proof of what is stored. Default, `{limits.proof}`:"
    yield f"  {_PROOFS[Policy(limits.proof)]}."
    yield f"- **Copies.** One copy of each instance is kept, {spread}. {_capital(settings.commitment_note)}."
    yield "  This product makes no second copy and knows of none that the store makes."
    yield "- **Deletion.** Nothing that is stored is deleted or overwritten by this product, at no age and for no want of"
    yield "  space. An object found to be damaged is set aside, and an administrator may prefer other content that came"
    yield "  under the same UID; the first is kept in both cases. Whoever has access to the store can delete from it."
    yield "- **Capacity.** That of the store. When it is full, instances wait in the log, and when that is full, no more are"
    yield "  acknowledged. None is committed that is not in the store."
    yield "- **Volatility.** None: stores are disks or buckets."
    yield "- **Retrieval.** There is no query and no retrieval over DICOM. Objects are PS3.10 files, named by SOP Instance"
    yield "  UID, which any tool reads from the store; `dicom-ingest get` fetches one and proves its bytes. At once."
    yield f"- **Retrieve AE Title (0008,0054).** {_retrieve_ae_title(limits.retrieve_ae_title)}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _retrieve_ae_title(title: str) -> str:
    if not title:
        return "Not sent, since nothing is served here."
    return (
        f"`{title}`, in every report: an administrator has set it, and answers for what is retrieved there."
    )


def _notifications(settings: Settings) -> Iterator[str]:
    limits = settings.commitment
    yield "##### 5.2.6.3 Notifications (N-EVENT-REPORT)"
    yield ""
    yield "Sent when every instance is proved or has failed: event type 1 when all are committed, else 2 with both lists."
    yield f"Usually within seconds; an instance that is absent is asked for again for {limits.absent_grace:g} s, and what a"
    yield f"store does not answer for {limits.wait_limit:g} s. Workers that lag delay a report, and never change it."
    yield "It goes to the configured address of the requestor on a new association, where we propose the SCP role (PS3.7"
    yield "D.3.3.4), or on the association of the request where the table of 6.2 says so."
    yield f"That association is then kept open for up to {limits.association_lease:g} s."
    yield "A warning is taken as success (PS3.7 C.4); every other status, and each failure to deliver, is temporary: the same"
    yield f"report is sent again after {limits.retry_first:g} s, then after twice as long up to {limits.retry_longest:g} s, for {limits.retry_limit:g} s; then it"
    yield "waits for the same request once more, or for an administrator. A report may come twice where we crashed before its"
    yield "response was recorded; both say the same. Storage Media File-Set ID and UID are not sent. 7.3.2 has the failure reasons."


def requestors(settings: Settings) -> Iterator[str]:
    """Section 6.2: who is reported to, where, and what counts as proof for whom."""
    if not settings.commitment.enabled:
        yield "No service is configured by peer but Storage, by `sources.NAME`."
        return
    yield "Reports of storage commitment:"
    yield ""
    yield "| source | AE titles | report goes to | proof | absent for | wait limit |"
    yield "|---|---|---|---|---|---|"
    for name, source in settings.sources.items():
        proof = source.proof or settings.commitment.proof
        grace = settings.commitment.absent_grace if source.absent_grace is None else source.absent_grace
        limit = settings.commitment.wait_limit if source.wait_limit is None else source.wait_limit
        titles = ", ".join(source.ae_titles)
        yield f"| {name} | {titles} | {_way(settings, source)} | {proof} | {grace:g} s | {limit:g} s |"
    yield f"| any other | | {_way(settings, None)} | {settings.commitment.proof} | | |"
    yield ""
    used = {Policy(source.proof or settings.commitment.proof) for source in settings.sources.values()}
    for policy in sorted(used | {Policy(settings.commitment.proof)}):
        yield f"`{policy}`: {_PROOFS[policy]}."


def _way(settings: Settings, source: SourceSettings | None) -> str:
    address = f"{source.host}:{source.port}" if source is not None and source.host else ""
    if source is not None and source.same_association:
        return (
            f"the association of the request, else {address}" if address else "the association of the request"
        )
    if address:
        return address
    if settings.commitment.without_address == "same-association":
        return "the association of the request"
    return "nowhere: refused with 0110H"
