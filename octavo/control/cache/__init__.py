"""The paged KV cache's bookkeeping. See README.md for its rules; block_manager is the one door."""
