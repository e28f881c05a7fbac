"""Tables: filled from the results, printed for Markdown, LaTeX, CSV and the terminal."""
