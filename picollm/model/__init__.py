"""The transformer itself; imports torch and nothing above it."""
