"""Where cells run: the pools of each back end, and the loop that feeds them."""
