"""CALCULATES: tensors in, tensors out. Obeys step plans; never sees a request, and decides nothing."""
