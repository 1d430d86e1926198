"""How plans reach the ranks that calculate, and how results come back."""
