"""Stages for tests: real processes that do as they are told."""
