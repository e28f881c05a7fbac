"""Tables: filled from the results, printed for Markdown, LaTeX, CSV, HTML and the terminal."""
