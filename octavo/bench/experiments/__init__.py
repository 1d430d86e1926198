"""The experiments of `octavo bench run`: each a question, its workload, and what is said of the outcome."""
