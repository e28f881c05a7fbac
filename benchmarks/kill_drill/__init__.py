"""A drawn grid under hundreds of kills, and the proof that nothing of them stays in its results."""
