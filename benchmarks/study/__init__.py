"""What a trained run shows: the picture of the loss, and what its pseudo-labels are worth."""
