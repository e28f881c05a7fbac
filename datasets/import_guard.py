"""Is `datasets` this project's package, or another one of that name? Needs no other module."""

from pathlib import Path


def check_is_ours() -> None:
    """Refuse to run with a foreign package called `datasets`.

    Hugging Face publishes one. When it is found first, importing this module already fails; when
    an editable install mixes the two, this check finds it.

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
