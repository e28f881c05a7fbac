"""Filled tables for Markdown, LaTeX, CSV, HTML and the terminal."""
