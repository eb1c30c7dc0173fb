"""What ingest and workers agree on: the records of the log, the spool that carries them, the settings.

What crosses the log:
    ``identifiers``  UIDs, AE titles, upload ids and partitions, checked      ``records``  of instances and outcomes
    ``commitments``  of storage commitment                                    ``checkpoint``  how far a partition has come
    ``spool``        the log's format on one machine
    ``kafka``        how Kafka is reached; ``kafka_topics`` are made and checked, ``kafka_logging`` makes events of its log
    ``producer``  sends records to it

Settings, one file a table and one for all:
    ``settings``, of ``settings_base`` and ``receiver_settings``, ``peer_settings``, ``kafka_settings``, ``ledger_settings``,
    ``audit_settings``, ``admin_settings``; ``listener_settings`` and ``source_settings`` check what goes with what;
    ``settings_sources`` are where values come from, ``settings_keys`` what they are in words; ``store_urls``;
    ``largest_instance`` is what the stores can take

What a process leaves for others on its data folder:
    ``running``      who runs                 ``refusals``  what was refused last
    ``unknown_sources``  what unknown sources have sent
    ``folder_sync``  which makes such files and their names durable

What processes of both sides do alike:
    ``telemetry``, ``uncaught``  events of the log          ``monitoring``  the admin port
    ``audit``        the trail of PS3.15                    ``pseudonyms``  keyed hashes of patients
    ``tls``          contexts and names                     ``supervision``  to end with the parent
    ``connecting``   by name, past what does not answer
    ``stop_signals`` to end when told to
    ``allocator``    memory kept, not given back and asked for again
    ``failpoints``   where tests make a process die

What their commands share:
    ``command_options``, ``command_failures``, ``command_folder``, ``command_audit``; ``command_columns`` on the terminal
"""
