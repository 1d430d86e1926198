"""From a plan to a result on one device: integers become tensors, tensors become tokens."""
