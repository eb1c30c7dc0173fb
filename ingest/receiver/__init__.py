"""The only sockets: listen, pump each connection, admit, answer.

``server``      listen, limits, clocks, drain          ``connection``  one TCP connection pumps one association
``admission``   who may associate, and how many        ``storage``     C-STORE: success once the log has it
``receiving``   a data set while it comes in           ``commitment``  N-ACTION: success once it is durable
``reports``     N-EVENT-REPORT on the same association
"""

from ingest.receiver.run import run_receiver, serve

__all__ = ["run_receiver", "serve"]
