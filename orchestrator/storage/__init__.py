"""Where runs and results lie and who owns them; `open.open_root` makes a root of an address."""
