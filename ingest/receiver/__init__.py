"""The only sockets: listen, pump each connection, admit, answer.

``server``      listen, limits, clocks, drain          ``connection``  one TCP connection pumps one association
``admission``   who may associate, and how many        ``storage``     C-STORE: success once the log has it
"""

from ingest.receiver.run import run_receiver, serve

__all__ = ["run_receiver", "serve"]
