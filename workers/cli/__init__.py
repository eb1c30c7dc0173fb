"""The workers' side of the command line; a command is a file of its name.

``worker``       one process: partitions of the log into the store
``status``       read as ``status_report``: an ``account`` of every instance, from the ``backlog`` of the spool or by
                 ``group_account`` from Kafka, and of all ``moves``; ``store_sizes``; ``rejected``; ``watch``, again and again
``find``, ``report``  ask the ledger, by ``ledger_book``, and what is ``waiting`` in the log; ``report_page``, as HTML
``ledger``       keeps it, or makes it anew
``get``, ``verify``  read objects back
``quarantine``, ``conflicts``  the lanes, by ``entry_tables``; what is decided there, ``decisions`` tells the audit trail
``shards``       which store has what
``opened``       what they share: open stores
"""
