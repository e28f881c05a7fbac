"""The errors of the data package that callers distinguish."""


class DataError(ValueError):
    """Data on disk is missing or broken; the text names the file and the cure.

    A run that meets it has failed for good: trying again reads the same bytes.
    """


class Unreachable(ConnectionError):
    """A server does not answer, however often it was asked; the text says what to do about it."""
