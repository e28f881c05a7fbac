"""The schema of a run, composed, checked and hashed."""
