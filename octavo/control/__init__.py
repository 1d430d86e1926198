"""The control plane: decides what runs when. Integers and text; no tensors."""
