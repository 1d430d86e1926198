"""Which continuations of a request live on. Integers and scores; knows no cache, queue, tensor or text."""
