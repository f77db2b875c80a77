"""What goes wrong when servers are started in a data folder."""


class EmbeddedStackError(RuntimeError):
    """The servers of a data folder cannot be started, or have ended; the message names the cure."""
