"""What works here, and what to do about the rest."""
