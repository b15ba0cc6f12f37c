"""One engine behind an OpenAI-compatible API and a web page."""
