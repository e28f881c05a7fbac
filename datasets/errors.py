"""The one error of this folder that callers act on."""


class DataError(ValueError):
    """Data on disk is missing or broken; the text names the file and the cure.

    A run that meets it has failed for good: trying again reads the same bytes.
    """
