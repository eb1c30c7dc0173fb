"""How much time has passed in a log, by the append times of its records.

A broker stamps records with its clock, and after a change of leader it is another broker's. So a step back
counts for nothing and a leap forward for no more than ``longest_step``: only many records that each are a
little younger make time pass, and a clock that is an hour wrong ends nobody's upload.
"""


class LogClock:
    """Of one partition. Pure."""

    def __init__(self, longest_step: int) -> None:
        """``longest_step``: milliseconds that the step from one record to the next counts at most."""
        self._longest_step = longest_step
        self._appended_at = 0
        self.elapsed = 0  # milliseconds since the first record that was read

    def after(self, appended_at: int) -> int:
        """What `elapsed` will be after a record that was appended at this time; 0 where the log keeps none."""
        if not self._appended_at or not appended_at:
            return self.elapsed
        return self.elapsed + min(max(appended_at - self._appended_at, 0), self._longest_step)

    def advance(self, appended_at: int) -> None:
        """Such a record was read."""
        self.elapsed = self.after(appended_at)
        self._appended_at = appended_at or self._appended_at
