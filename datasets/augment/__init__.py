"""Weak and strong views of images; the host and the device compute the same bytes."""
