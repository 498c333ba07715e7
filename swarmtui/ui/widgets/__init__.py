"""Widgets: our own table and log on the line API, the frame around them, the prompt. They know no cluster: rows and lines
are handed to them, and what a person did comes back as messages.
"""
