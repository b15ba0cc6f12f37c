"""Where text and rows come from: local files, the Hub, the offline primer, the identity set."""
