"""Audit trail by PS3.15 A.5: who sent what, who decided what, and who was not let in, for both sides.

``codes``     the coded values of PS3.16          ``message``   an audit message, and its XML (A.5.1)
``events``    our events as such messages         ``gathered``  many instances of a study become one message
``trail``     of one process: takes events, never waits, writes once a second
``files``     the trail on disk, where everything goes first and waits until it is delivered
``delivery``  to the audit repository: who holds the lock of the folder sends for all of it
``syslog``    RFC 5424 messages over TLS (RFC 5425, PS3.15 A.6)

No patient's name ever; the Patient ID only where ``audit.patient_id`` says so.
"""

from ingest.contract.audit.trail import Trail, record, settings_reloaded

__all__ = ["Trail", "record", "settings_reloaded"]
