"""Which images the cells of recipe=folder mean: neither key nor fingerprint says so."""

from collections.abc import Mapping

from trainer.config import TrainConfig


def data_of(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
    """Fingerprint of today's data of every cell whose dataset is somebody's own folder.

    Args:
        configs: by key.

    Returns:
        By key; without cells whose data is not on this machine, of which nobody can tell.
    """
    own = {key: config.data for key, config in configs.items() if config.data.dataset == "folder"}
    if not own:
        return {}
    from datasets.opening import fingerprint_of  # only those who need it wait for Pillow

    known: dict[object, str] = {}
    for data in own.values():
        if data not in known:
            try:
                known[data] = fingerprint_of(data)
            except (ValueError, OSError):
                known[data] = ""
    return {key: known[data] for key, data in own.items() if known[data]}
