"""How fast, against whom, and against which limit: every figure is a ratio of arms that alternate in one run.

``data``, ``mix``  seeded instances whose pixels compress like real images, and a hospital day of them
``load``      the storage SCU: associations (``scu``) in processes, in ``closed_loop`` or ``open_loop``
``peers``     the receivers that are compared, ours and others': ``noop_receiver``, ``pynetdicom_scp``, those of ``cargo``
``messages``  C-STORE requests encoded once             ``commitment_requests``  a modality that asks again and again
``pipeline``  our own, step by step; ``releaser`` stands in for its workers, ``minio`` for its buckets
``disk``, ``sink``, ``tcp_copy``, ``codec_calls``, ``kafka_sender``, ``kafka_readers``  what there is without us: the limits
``scenarios`` what is compared with what                ``micro``   time per operation
``processes`` children, measured and ended by their ids  ``machine``  what the figures were measured on
``arms``      alternation, medians and spread           ``guard``   ratios against those of the baseline
``tracing``   threads, system calls and samples of a process
``tables``, ``plots``, ``report_folder``  Markdown and JSON, SVG, both in a folder
"""
