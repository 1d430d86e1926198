"""Sending requests on a schedule, and what came back and when. Knows no engine: only `targets.target`."""
