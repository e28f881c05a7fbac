"""Where runs and results lie, who owns them; a folder or S3."""
