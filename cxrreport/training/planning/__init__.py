"""Resource estimates of training: memory, operations, time and cost."""
