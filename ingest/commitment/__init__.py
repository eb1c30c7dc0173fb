"""Storage commitment (PS3.4 Annex J): asked by N-ACTION, proved by workers, reported by N-EVENT-REPORT.

``interface``     what the receiver's side of it needs of the engine
``transactions``  the state machine: records in, next steps out; ``transaction`` is one of them, ``deliveries``
                  whose turn it is, ``rounds`` what is asked and what was found, ``rules`` how patient we are; all pure
``engine``        drives it: logs, clock, peers; with ``accepting`` (requests), ``asking`` (fences), ``proving`` (rounds),
                  ``reading`` (proofs), ``reporting`` (reports) and ``carrying`` (what is about to leave the log)
``unserved``      what a start says of open transactions where commitment is off
"""
