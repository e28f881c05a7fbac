"""Crops and views: drawn parameters, and the same bits on the host and on a device."""
