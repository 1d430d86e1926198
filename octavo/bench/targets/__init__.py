"""Engines under test, each behind one protocol (target.py). Nothing here measures."""
