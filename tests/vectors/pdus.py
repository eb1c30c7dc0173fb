"""PDUs as bytes, each with its fields: captured from other implementations, or typed from PS3.8 9.3."""

from typing import NamedTuple

from ingest.association.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    DataTransfer,
    Pdu,
    PresentationDataValue,
    ReleaseRequest,
    ReleaseResponse,
)
from ingest.association.pdu_items import (
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserIdentity,
    UserInformation,
)


class Vector(NamedTuple):
    name: str
    encoded: bytes
    decoded: Pdu
    canonical: bool = True  # whether encoding what was decoded gives the same bytes


def h(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts))


def item(kind: str, *parts: str) -> str:
    """An item typed as hexadecimal, with its length worked out."""
    value = "".join(parts)
    return f"{kind}00{len(value) // 2:04x}{value}"


def pdu(kind: str, *parts: str) -> bytes:
    """A PDU typed as hexadecimal, with its length worked out."""
    value = "".join(parts)
    return bytes.fromhex(f"{kind}00{len(value) // 2:08x}{value}")


def text(value: str) -> str:
    return value.encode("ascii").hex()


def counted(value: str) -> str:
    return f"{len(value):04x}{text(value)}"


APPLICATION_CONTEXT = "10000015" + b"1.2.840.10008.3.1.1.1".hex()

# DCMTK 3.6.7 echoscu: reserved byte of item 20H is FFH.
DCMTK_ECHO_RQ = Vector(
    "DCMTK echoscu A-ASSOCIATE-RQ",
    h(
        "0100000000cd",  # type 01H, PDU-length 205
        "00010000",  # protocol version 1
        "414e5920202020202020202020202020",  # called "ANY"
        "4543484f534355202020202020202020",  # calling "ECHOSCU"
        "00" * 32,
        APPLICATION_CONTEXT,
        "2000002e0100ff00",  # presentation context 1
        "30000011312e322e3834302e31303030382e312e31",  # Verification
        "40000011312e322e3834302e31303030382e312e32",  # Implicit VR Little Endian
        "5000003a",
        "5100000400004000",  # 16384
        "5200001b312e322e3237362e302e373233303031302e332e302e332e362e37",
        "5500000f4f464649535f44434d544b5f333637",  # OFFIS_DCMTK_367
    ),
    AssociateRequest(
        called_ae_title="ANY",
        calling_ae_title="ECHOSCU",
        contexts=(PresentationContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
        user_information=UserInformation(
            maximum_length=16384,
            implementation_class_uid="1.2.276.0.7230010.3.0.3.6.7",
            implementation_version_name="OFFIS_DCMTK_367",
        ),
    ),
    canonical=False,
)

# pynetdicom 3.0.4 echoscu: four transfer syntaxes.
PYNETDICOM_ECHO_RQ = Vector(
    "pynetdicom echoscu A-ASSOCIATE-RQ",
    h(
        "01000000011900010000",
        "414e592d534350202020202020202020",  # "ANY-SCP"
        "4543484f534355202020202020202020",
        "00" * 32,
        APPLICATION_CONTEXT,
        "2000007601000000",
        "30000011312e322e3834302e31303030382e312e31",
        "40000013312e322e3834302e31303030382e312e322e31",
        "40000011312e322e3834302e31303030382e312e32",
        "40000016312e322e3834302e31303030382e312e322e312e3939",
        "40000013312e322e3834302e31303030382e312e322e32",
        "5000003e",
        "5100000400003ffe",  # 16382
        "52000020312e322e3832362e302e312e333638303034332e392e333831312e332e302e34",
        "5500000e50594e45544449434f4d5f333034",
    ),
    AssociateRequest(
        called_ae_title="ANY-SCP",
        calling_ae_title="ECHOSCU",
        contexts=(
            PresentationContext(
                1,
                "1.2.840.10008.1.1",
                (
                    "1.2.840.10008.1.2.1",
                    "1.2.840.10008.1.2",
                    "1.2.840.10008.1.2.1.99",
                    "1.2.840.10008.1.2.2",
                ),
            ),
        ),
        user_information=UserInformation(
            maximum_length=16382,
            implementation_class_uid="1.2.826.0.1.3680043.9.3811.3.0.4",
            implementation_version_name="PYNETDICOM_304",
        ),
    ),
)

# NUL-padded AE titles and UIDs, further protocol version bits, unknown items, reserved bytes set.
PADDED_RQ = Vector(
    "A-ASSOCIATE-RQ padded with NUL and space, with unknown items",
    pdu(
        "01",
        "8003ffff",  # version bits 0, 1 and 15; reserved
        "20534350" + "00" * 12,  # " SCP", then NUL
        "534355" + "00" * 13,
        "aa" * 32,
        item("10", text("1.2.840.10008.3.1.1.1") + "00"),
        item("99", "01020304"),  # unknown item
        item(
            "20",
            "01ffffff",
            item("30", text("1.2.840.10008.1.1") + "00"),
            item("40", text("1.2 ")),
            item("41"),  # unknown item within the context
        ),
        item("50", item("51", "00000000"), item("6f", "00"), item("6f", "00")),  # unknown sub-item, twice
    ),
    AssociateRequest(
        called_ae_title="SCP",
        calling_ae_title="SCU",
        contexts=(PresentationContext(1, "1.2.840.10008.1.1", ("1.2",)),),
        user_information=UserInformation(maximum_length=0),
        protocol_version=0x8003,
        reserved=b"\xaa" * 32,
    ),
    canonical=False,
)

FULL_RQ = Vector(
    "A-ASSOCIATE-RQ with every sub-item",
    pdu(
        "01",
        "00010000",
        text("S" + " " * 15),
        text("C" + " " * 15),
        "00" * 32,
        APPLICATION_CONTEXT,
        item("20", "01000000", item("30", text("1.2")), item("40", text("1.3"))),
        item("20", "ff000000", item("30", text("1.2")), item("40", text("1.3")), item("40", text("1.4"))),
        item(
            "50",
            item("51", "00020000"),  # 131072
            item("52", text("1.5")),
            item("53", "0005", "0000"),  # 5 invoked, any number performed
            item("54", counted("1.2"), "00", "01"),  # SCP role only
            item("55", text("V1")),
            item("56", counted("1.2"), "0200ff"),
            item("57", counted("1.2"), counted("1.2.840.10008.4.2"), "000a", counted("1.6"), counted("1.7")),
            item("58", "02", "01", counted("user"), counted("word")),
        ),
    ),
    AssociateRequest(
        called_ae_title="S",
        calling_ae_title="C",
        contexts=(PresentationContext(1, "1.2", ("1.3",)), PresentationContext(255, "1.2", ("1.3", "1.4"))),
        user_information=UserInformation(
            maximum_length=131072,
            implementation_class_uid="1.5",
            asynchronous_operations_window=(5, 0),
            role_selections=(RoleSelection("1.2", scu_role=False, scp_role=True),),
            implementation_version_name="V1",
            extended_negotiations=(ExtendedNegotiation("1.2", b"\x02\x00\xff"),),
            common_extended_negotiations=(
                CommonExtendedNegotiation("1.2", "1.2.840.10008.4.2", ("1.6", "1.7")),
            ),
            user_identity=UserIdentity(
                2, positive_response_requested=True, primary_field=b"user", secondary_field=b"word"
            ),
        ),
    ),
)

ASSOCIATE_AC = Vector(
    "A-ASSOCIATE-AC with an accepted and two refused contexts",
    pdu(
        "02",
        "00010000",
        text("S" + " " * 15),
        text("C" + " " * 15),
        "00" * 32,
        APPLICATION_CONTEXT,
        item("21", "01000000", item("40", text("1.2.840.10008.1.2"))),
        item("21", "03000300", item("40")),  # abstract syntax not supported
        item("21", "05000400", item("40")),  # transfer syntaxes not supported
        item("50", item("51", "00004000"), item("52", text("1.5")), item("59", "0000")),
    ),
    AssociateAccept(
        called_ae_title="S",
        calling_ae_title="C",
        contexts=(
            PresentationContextResult(1, 0, "1.2.840.10008.1.2"),
            PresentationContextResult(3, 3, ""),
            PresentationContextResult(5, 4, ""),
        ),
        user_information=UserInformation(
            maximum_length=16384, implementation_class_uid="1.5", user_identity_response=b""
        ),
    ),
)

# Some acceptors leave out the 40H of a refused context, or fill it with anything.
ODD_REFUSALS = Vector(
    "A-ASSOCIATE-AC whose refused contexts have no or an unreadable transfer syntax",
    pdu(
        "02",
        "00010000",
        text(" " * 32),
        "00" * 32,
        item("21", "01000100"),
        item("21", "03000200", item("40", "ff")),
    ),
    AssociateAccept(
        called_ae_title="",
        calling_ae_title="",
        contexts=(PresentationContextResult(1, 1, ""), PresentationContextResult(3, 2, "")),
        user_information=UserInformation(),
        application_context="",
    ),
    canonical=False,
)

# DCMTK 3.6.7 echoscu: the command set of a C-ECHO-RQ, one PDV.
C_ECHO_RQ_COMMAND = h(
    "000000000400000038000000",  # (0000,0000) 56
    "0000020012000000312e322e3834302e31303030382e312e3100",  # (0000,0002) Verification, NUL-padded
    "00000001020000003000",  # (0000,0100) 0030H
    "00001001020000000100",  # (0000,0110) 1
    "00000008020000000101",  # (0000,0800) 0101H
)
DCMTK_C_ECHO_RQ = Vector(
    "DCMTK echoscu P-DATA-TF with a C-ECHO-RQ",
    h("04000000004a", "00000046", "01", "03") + C_ECHO_RQ_COMMAND,
    DataTransfer((PresentationDataValue(1, is_command=True, is_last=True, data=C_ECHO_RQ_COMMAND),)),
)

# DCMTK 3.6.7 storescu: the command set of a C-STORE-RQ of a CT image.
C_STORE_RQ_COMMAND = h(
    "000000000400000082000000",  # (0000,0000) 130
    "000002001a000000312e322e3834302e31303030382e352e312e342e312e312e3200",  # (0000,0002) CT Image Storage
    "00000001020000000100",  # (0000,0100) 0001H
    "00001001020000000100",  # (0000,0110) 1
    "00000007020000000000",  # (0000,0700) medium
    "00000008020000000100",  # (0000,0800) 0001H: a data set follows
    "0000001030000000312e332e362e312e342e312e353936322e312e312e312e312e312e32303034303131393037323733302e3132333232",
    "00",
)

TWO_PDVS = Vector(
    "P-DATA-TF with the end of a command and the start of a data set",
    pdu("04", "00000006", "01", "03", "01020304", "00000004", "01", "fc", "0506", "00000002", "01", "02"),
    DataTransfer(
        (
            PresentationDataValue(1, is_command=True, is_last=True, data=b"\1\2\3\4"),
            PresentationDataValue(1, is_command=False, is_last=False, data=b"\5\6"),  # reserved bits set
            PresentationDataValue(1, is_command=False, is_last=True, data=b""),
        )
    ),
    canonical=False,
)

ASSOCIATE_RJ = Vector("A-ASSOCIATE-RJ", h("030000000004", "00020302"), AssociateReject(2, 3, 2))
RELEASE_RQ = Vector("A-RELEASE-RQ", h("050000000004", "00000000"), ReleaseRequest())
RELEASE_RP = Vector("A-RELEASE-RP", h("060000000004", "00000000"), ReleaseResponse())
ABORT = Vector("A-ABORT", h("070000000004", "00000206"), Abort(2, 6))
ODD_ABORT = Vector(
    "A-ABORT with reserved values and bytes", h("07ff00000004", "ffff01ff"), Abort(1, 255), canonical=False
)

VECTORS = (
    DCMTK_ECHO_RQ,
    PYNETDICOM_ECHO_RQ,
    PADDED_RQ,
    FULL_RQ,
    ASSOCIATE_AC,
    ODD_REFUSALS,
    DCMTK_C_ECHO_RQ,
    TWO_PDVS,
    ASSOCIATE_RJ,
    RELEASE_RQ,
    RELEASE_RP,
    ABORT,
    ODD_ABORT,
)
