"""The worker side of the log: records to uploads, and each upload's place announced and counted.

    spool_reader | kafka_consumer --entries--> reassembly --upload--> (pipeline) --outcome--> checkpoint

``reader``        what a log is to a worker: `SpoolReader`, or `KafkaReader` of ``kafka_consumer`` with ``kafka_poller``,
                  the thread that owns the client, with ``kafka_options`` and the sockets of ``kafka_network``, and tells of
                  each ``ownership``; ``choice``, which log one machine has
``entries``       what is read: records, and damage where one should be
``reassembly``    makes an ``upload`` of them: ``pending`` until its end, in ``scratch`` where it is large; ``expiry``
                  tells what has waited too long, by ``log_clock``
``in_hand``       marks of what is worked on, which outlive the process
``checkpoint``    how far a partition has come, and the steps that make a place count; on Kafka ``offset_progress``, which
                  fits beside an offset as ``commit_metadata`` and is read back as ``kafka_account``, held against what
                  brokers may have lost by ``leader_epochs``; who is not of the group asks by ``group_commits``
``outcome_producer``, ``kafka_outcomes``  where outcomes are announced
``fence``         a question of storage commitment; its ``proof`` goes to ``proof_files`` or ``kafka_proofs``
"""
