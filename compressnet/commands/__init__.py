"""The commands as plain functions that return dataclasses; the command line only parses and draws."""
