"""Measurements that take minutes, each a command of its own; CONTRIBUTING.md lists them."""
