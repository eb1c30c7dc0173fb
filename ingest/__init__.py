"""DICOM to peers, instances to the log; never looks at pixels.

The path of one C-STORE, a folder a hop:

    peer --bytes--> receiver --PDUs--> association --fragments--> dimse --C-STORE--> instance --record--> log

``receiver``     the only sockets: listen, pump, admit, answer
``association``  PS3.8 Upper Layer, pure: bytes in, events and bytes out
``dimse``        PS3.7 messages, pure: fragments in, messages out
``instance``     one C-STORE becomes one sealed instance, cut into records
``log``          publishes records and says when they are durable
``commitment``   PS3.4 Annex J: an N-ACTION becomes fences in the log, their proofs a report to the peer
``sender``       the other end of an association: reports, and the commands that send
``cli``          the commands of this side, and the supervisor of `serve`
``errors``       whose fault it is, and what follows
``contract``     what crosses the log: all that ``workers`` may import from here
"""
