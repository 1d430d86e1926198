"""What stands in for a device where only decisions are of interest. Knows no tensors."""
