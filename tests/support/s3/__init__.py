"""A real S3 server in a box, and what goes wrong between it and a client."""
