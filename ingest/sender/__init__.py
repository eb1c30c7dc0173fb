"""The requestor's side: C-ECHO, C-STORE of files and folders, and both sides of storage commitment.

``files``      PS3.10 files and what must be known of them      ``contexts``   which associations they need
``requestor``  one association, one operation at a time         ``transfer``   several at once, and the summary
``commitment`` asked for and waited for, or reported           ``listener``   where a peer reports to us
``inbox``      what comes on an association                   ``tls``        whom a connection trusts
``trial``      a return address tried out
"""

from ingest.sender.requestor import AssociationFailed, NoAnswer, Peer, Requestor
from ingest.sender.transfer import Summary, send_files

__all__ = ["AssociationFailed", "NoAnswer", "Peer", "Requestor", "Summary", "send_files"]
