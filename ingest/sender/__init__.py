"""A service class user, for trying and loading: C-ECHO, and C-STORE of files and folders.

``files``      PS3.10 files and what must be known of them      ``contexts``   which associations they need
``requestor``  one association, one operation at a time         ``transfer``   several at once, and the summary
"""

from ingest.sender.requestor import AssociationFailed, Peer, Requestor
from ingest.sender.transfer import Summary, send_files

__all__ = ["AssociationFailed", "Peer", "Requestor", "Summary", "send_files"]
