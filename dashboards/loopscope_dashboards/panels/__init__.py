"""Rows in, things to look at out: Plotly figures and node trees. Pure; no SQL, no session."""
