"""Trains the run behind a printed number again, elsewhere, and says whether it comes out so."""
