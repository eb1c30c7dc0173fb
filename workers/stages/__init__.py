"""The stages an instance passes, each a function: the instance in; facts about it, or `Rejected`, out.

``seal``         are these the bytes that were received?
``deduplicate``  known already? And once it is validated: compared with what is stored, the same object or a conflict?
``validate``     is it what it claims, and can it be read?
``transcode``    to JPEG 2000 lossless, proved; or ``passage``, why it keeps its bytes
``store``        one conditional create
``outcome``      what is announced of it

Beside the way in: ``decompress``, the way back for readers without JPEG 2000, and ``prove``, what a storage commitment may
say. `workers.pipeline` has their order.
"""
