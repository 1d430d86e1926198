"""The command line: serve, generate, chat, bench, doctor. Translates words and flags; decides nothing."""
