"""A check that `datasets` is this project's package and not Hugging Face's of the same name."""

from pathlib import Path


def check_is_ours() -> None:
    """Raise if Python found another package called `datasets`.

    If Hugging Face's is found first, importing this module fails already. If an editable install
    mixes the two, this module is found and the package is the other one, which is detected here.

    Raises:
        RuntimeError: the package that Python found does not lie beside this file.
    """
    import datasets

    ours = Path(__file__).resolve().parent
    imported = Path(datasets.__file__).resolve().parent if datasets.__file__ else None
    if imported != ours:
        raise RuntimeError(
            f"Python found a foreign package `datasets` ({imported}) before this project's "
            f"({ours}). Start from the checkout ({ours.parent}) with `python -m ...`, or put it "
            "first on PYTHONPATH; if that does not help, uninstall the other package from this "
            "environment."
        )
