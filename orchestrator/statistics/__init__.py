"""Statistics over seeds and splits: paired differences, an exact test, intervals, Holm."""
