"""Data sets as conversations, and the rules that say when a reply is right."""
