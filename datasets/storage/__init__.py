"""Object storage with one interface for a local folder and an S3 bucket."""
