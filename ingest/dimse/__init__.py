"""DIMSE (PS3.7), pure: fragments of an association in, messages out.

::

    assembler = MessageAssembler()
    begun = assembler.receive(fragment)            # MessageBegun, the fragment of a data set, or None
    association.send_command(begun.context_id, begun.message.respond(SUCCESS).encode())

``command_set``  the command set's codec     ``messages``        C-ECHO, C-STORE, C-CANCEL, unknown ones
``assembler``    joins fragments             ``normalized``      N-ACTION, N-EVENT-REPORT
``status``       status codes                ``command_fields``  what messages have in common
``plain_store``  C-STORE as most peers send it, in one step
``data_set``     sequences of references     ``commitment_request``, ``commitment_report``  what storage commitment says
"""

from ingest.dimse.assembler import MessageAssembler, MessageBegun
from ingest.dimse.messages import (
    CCancelRequest,
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    Message,
    UnknownRequest,
    UnknownResponse,
)
from ingest.dimse.normalized import (
    NActionRequest,
    NActionResponse,
    NEventReportRequest,
    NEventReportResponse,
)

__all__ = [
    "CCancelRequest",
    "CEchoRequest",
    "CEchoResponse",
    "CStoreRequest",
    "CStoreResponse",
    "Message",
    "MessageAssembler",
    "MessageBegun",
    "NActionRequest",
    "NActionResponse",
    "NEventReportRequest",
    "NEventReportResponse",
    "UnknownRequest",
    "UnknownResponse",
]
