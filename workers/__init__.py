"""Instances from the log, durable objects out, outcomes announced.

    log --record--> reassembly --upload--> seal, known?, validate, compare, transcode, store --outcome--> log

``process``   what a worker's process opens, in order; ``grouped_process``, in a consumer group
``worker``    the loop: of each ``partition`` it reads, keeps what is ``unsettled``, gives it its place by ``turns``, and ``commits``
``fences``    questions of storage commitment, proved when all before them is placed
``pipeline``  the stages in their order; ``audited``, with an audit trail; ``metrics``, what is counted around it
``errors``    whose fault it is, and what follows; ``threads``, work that is never left behind half done

``log``       reads records, reassembles uploads, checkpoints, announces outcomes
``stages``    each: one instance in; the instance, or ``Rejected``, out
``dataset``   reads a data set as elements without changing a byte
``pixels``    frames and codecs; the codec runs in child processes
``storage``   objects under their keys, written once; the lanes for conflicts and quarantine
``ledger``    a database of what was sent and what became of it, made from the logs
``cli``       the commands of this side

The commit rule: an upload's outcome is announced only after its object is durable, and the low-water mark
passes an upload only after its outcome is announced.
"""
