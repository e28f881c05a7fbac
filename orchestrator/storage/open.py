"""The root at an address: a folder or a bucket, told apart here and nowhere else."""

from datasets.storage.open import folder_of, is_url
from orchestrator.storage.local_root import LocalRoot
from orchestrator.storage.root import Root
from orchestrator.trial import Trial


def open_root(address: str, scratch: str = "") -> Root:
    """The root that a user names.

    Args:
        address: a folder, or s3://bucket/prefix.
        scratch: with a bucket, folder in which runs train; empty for the default.

    Raises:
        ValueError: a URL of another kind, or with credentials in it.
    """
    if not is_url(address):
        return LocalRoot(folder_of(address))
    # Here and not above: `status` of a folder must start fast.
    from orchestrator.storage.s3_root import S3Root

    return S3Root.at(address, scratch)


def root_of(trial: Trial) -> Root:
    """The root that a trial belongs to, in the process that runs it or watches it."""
    return open_root(trial.root, trial.root_scratch)
