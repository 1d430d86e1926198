"""OpenAI's HTTP API: completions, chat completions, models; and vLLM's tokenize and detokenize."""
