"""Work between two trainings of one run: predicted masks, and which images have sure ones."""
