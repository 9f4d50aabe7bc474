"""Networks: models, training and pruning."""
