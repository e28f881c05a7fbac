"""A run's best weights as one safetensors file that needs nothing beside it."""

import json
from pathlib import Path

from safetensors.torch import save_file

from trainer.fingerprint import config_json, fingerprint
from trainer.loading import METADATA, describe, load_trained


def export(run: Path, out: Path) -> None:
    """Write weights, configuration and names; byte for byte the same each time.

    Args:
        run: a run's folder or one of its checkpoints.
        out: the file to write, by rename.

    Raises:
        NetworkError: there are no whole weights in `run`.
        ValueError: `out` has another ending, by which no program would know the format.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"out={out} must end in .safetensors, the format that is written.")
    trained = load_trained(run)
    weights = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    about = describe(trained) | {"fingerprint": fingerprint(trained.config)}
    about["config"] = json.loads(config_json(trained.config))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".tmp")
    # One entry: safetensors writes several in an order of its own, new in every process.
    save_file(weights, part, {METADATA: json.dumps(about, sort_keys=True)})
    part.replace(out)
