"""The worker side of the log: records to uploads, and each upload's place announced and counted."""
