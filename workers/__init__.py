"""Instances from the log, durable objects out, outcomes announced.

    log --record--> reassembly --upload--> seal, known?, validate, transcode, deduplicate, store --outcome--> log

``log``      reads records, reassembles uploads, checkpoints, announces outcomes
``stages``   each: one instance in; the instance, or ``Rejected``, out
``dataset``  reads a data set as elements without changing a byte
``pixels``   frames and codecs; the codec runs in child processes
``storage``  objects under their keys, written once; the lanes for conflicts and quarantine

The commit rule: an upload's outcome is announced only after its object is durable, and the low-water mark
passes an upload only after its outcome is announced.
"""
