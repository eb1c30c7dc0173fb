"""pynetdicom's reactor kept from what is not for it."""

from pynetdicom.association import Association


def leave_responses_to_their_senders(association: Association) -> None:
    """The reactor believes itself paused a moment too early, and would take a response for a request.

    Whoever has sent a request waits for its response; who does not wait is the reactor.
    """
    get_message, peek = association.dimse.get_msg, association.dimse.peek_msg

    def get(block: bool = False) -> object:
        _, message = peek()
        is_request = message is not None and message.MessageIDBeingRespondedTo is None
        return get_message(block) if block or is_request else (None, None)

    # pynetdicom offers no other place between its queue and its reactor.
    association.dimse.get_msg = get  # type: ignore[method-assign, assignment]
