"""Which sequences run in a step, and with how many tokens each."""
