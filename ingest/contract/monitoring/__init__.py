"""What each process shows of itself on its admin port, for both sides.

``admin``        all of it for one process, from start to end
``instruments``  counters, histograms and gauges, cheap enough for every instance
``exposition``   the same as text that Prometheus reads
``health``       live and ready, with reasons            ``heartbeat``  whether the event loop answers
``sources``      the only names of senders in metrics    ``pages``      /metrics, /livez, /readyz
``server``       the HTTP server, in a thread of its own
"""
