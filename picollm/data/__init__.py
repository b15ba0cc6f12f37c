"""Where text and rows come from: data sets on disk or on the Hub, the offline primer, the identity of the model."""
