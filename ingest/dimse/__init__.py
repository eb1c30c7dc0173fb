"""DIMSE (PS3.7), pure: fragments of an association in, messages out.

::

    assembler = MessageAssembler()
    begun = assembler.receive(fragment)            # MessageBegun, the fragment of a data set, or None
    association.send_command(begun.context_id, begun.message.respond(SUCCESS).encode())

``command_set``  the command set's codec     ``messages``   C-ECHO, C-STORE, C-CANCEL, unknown ones
``assembler``    joins fragments             ``status``     status codes, each with its section
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

__all__ = [
    "CCancelRequest",
    "CEchoRequest",
    "CEchoResponse",
    "CStoreRequest",
    "CStoreResponse",
    "Message",
    "MessageAssembler",
    "MessageBegun",
    "UnknownRequest",
    "UnknownResponse",
]
