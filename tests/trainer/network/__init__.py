"""Tests of trainer/network/."""
