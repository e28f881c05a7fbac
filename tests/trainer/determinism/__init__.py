"""Tests of determinism: what is allowed, what a mutation must break."""
