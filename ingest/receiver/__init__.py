"""The only sockets: listen, pump each connection, admit, answer.

The way of a connection:
    ``run``         the process                            ``server``      limits, clocks, drain
    ``listeners``   where we listen: plain, or with TLS by ``handshakes``, whose ``credentials`` may change
    ``admission``   who may associate, and how many: ``sources``, how many of them and of ``addresses``, how fast by ``rate``,
                    and what ``unknown_sources`` may leave
    ``connection``  one TCP connection pumps one association; ``clock``, how long its peer is silent or slow
    ``operations``  what is asked on it, one at a time: each request to its service, its outcome into a response
    ``receiving``   a data set while it comes in           ``storage``     C-STORE: success once the log has it
    ``commitment``  N-ACTION: success once it is durable   ``reports``     N-EVENT-REPORT on the same association

Beside it:
    ``telemetry``   what is told of each association, with the ``reasons`` of ``refusals``; ``metrics``
    ``reload``      SIGHUP
"""

from ingest.receiver.run import run_receiver, serve

__all__ = ["run_receiver", "serve"]
