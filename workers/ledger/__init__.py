"""The ledger: what was sent, by whom, and what became of it; a database made from the logs, and made anew at will.

    logs       what is read: outcomes and commitments, of the spool (`spool_logs`) or of Kafka (`topic_logs`)
    inserts    records as rows; pure
    tables     where they go; the same in SQLite and PostgreSQL
    database   where the tables are: SQLite or a PostgreSQL server
    ledger     one transaction: the rows of a batch, and how far the log is read
    consumer   reads on, for as long as there is more
    rebuild    the same rows from heads of objects, lanes and move records
    questions  what is asked of it
    day        what is asked for a day's report
    process    keeps it beside the workers

A patient is in it by keyed hashes alone, see `ingest.contract.pseudonyms`.
"""
