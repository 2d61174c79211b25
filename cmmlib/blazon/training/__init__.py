"""The embedded world's model: configuration, training from scratch, interventions."""
