"""What a training run needs before it starts: memory, operations, time and cost."""
