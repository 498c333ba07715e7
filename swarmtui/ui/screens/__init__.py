"""Screens: the console itself (`main`, on `console`), and the dialogs above it. Dialogs are imported when they open."""
