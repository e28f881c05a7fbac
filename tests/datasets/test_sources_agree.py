"""One trial from files, from shards of a folder and from shards of S3: one set of weights."""

from datasets.__main__ import main
from tests.support.tiny_config import tiny_config
from trainer.run import train


def test_the_weights_do_not_depend_on_where_the_images_lie(tmp_path, store) -> None:
    short = ("optim.epochs=1", "method=unimatch_star", "loss=kl")
    files = tmp_path / "files"
    sizes = ("num_train=20", "num_val=4", "width=48", "height=40")
    main(["draw", f"root={files}", *sizes])
    places = [str(files), str(tmp_path / "packed"), str(tmp_path / "decoded")]
    main(["pack", f"root={files}", f"to={places[1]}"])
    main(["pack", f"root={files}", f"to={places[2]}", "decoded=yes"])
    if store is not None:
        main(["pack", f"root={files}", f"to={store.url}"])
        places.append(store.url)

    outcomes = []
    for number, place in enumerate(places):
        near = f"data.cache={tmp_path / 'cache'}"
        config = tiny_config(files, *short, near, f"data.root={place}")
        summary = train(config, tmp_path / f"run{number}")
        outcomes.append(
            (summary.weights_sha256, summary.data_fingerprint, summary.last_miou_percent)
        )

    assert len(set(outcomes)) == 1
