"""What makes a checkpoint work elsewhere: GGUF and Ollama files, certificates, model cards, the Hub."""
