"""The decoder that every family shares, and the readers that fill it with a checkpoint's weights."""
