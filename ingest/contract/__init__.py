"""What ingest and workers agree on: the records of the log, the spool that carries them, the settings."""
