"""Results for reports: what runs of a grid would leave, and a grid that really runs."""

import json
from dataclasses import replace

from orchestrator.planning.plan import make_plan
from orchestrator.results.history import publish_history
from orchestrator.results.store import publish
from sweeps.grid import load_grid
from tests.support.result_rows import DRAWN, row_of

TABLE = """
title: Two methods & a baseline
corner: Drawn
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 32}
columns: {split: [1of2]}
blocks:
  - rows:
      - {label: Supervised, cell: {method: supervised_star, loss: none}}
      - {label: "UniMatch*", cell: {method: unimatch_star, loss: none}}
      - {label: IPixMatch, cell: {method: unimatch_star, loss: kl}}
      - {label: Improvement, minus: [IPixMatch, "UniMatch*"]}
"""


def write_history(folder, epochs):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"step": 5 * epoch, "epoch": epoch, **values})
        for epoch, values in epochs.items()
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def publish_drawn(root, tmp_path, seeds=(1, 2)):
    """Results of the grid DRAWN, as its runs would leave them; one cell has failed."""
    plan = make_plan(DRAWN, root)
    names = ("background", "striped disc", "checked box")
    for number, cell in enumerate(plan.cells):
        own = load_grid(DRAWN).cells[number]
        for seed in seeds:
            placed = replace(own, seed=seed)
            score = 40.0 + number + seed / 3
            curve = {e: {"miou_percent": score - 9 / e, "mask_ratio": e / 9} for e in (1, 2, 3)}
            folder = write_history(tmp_path / "lines", curve)
            row = row_of(
                placed,
                score,
                fingerprint=cell.fingerprint,
                config_json=cell.config_json.replace('"seed":12345}', f'"seed":{seed}}}'),
                best_iou_percent=(score + 20, score, score - 20 if number else None),
                class_names=names,
                best_confusion=((90, 8, 2), (1, 40, 59), (0, 0, 0)),
                seconds=360.0,
                gpu_seconds=360.0,
                peak_memory_bytes=2**31,
            )
            publish_history(root, placed.key, 1, folder)
            publish(root, row)
    failed = plan.cells[0]
    error = "Diverged: <script>alert('no')</script>"
    fields = {"fingerprint": failed.fingerprint, "config_json": failed.config_json}
    kind = {"error_class": "diverged", "error_text": error}
    publish(root, row_of(load_grid(DRAWN).cells[0], **fields, **kind))
