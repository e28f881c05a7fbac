"""One optimiser step of a run; `trainer.loop` takes one after another. The door is `Step`."""
