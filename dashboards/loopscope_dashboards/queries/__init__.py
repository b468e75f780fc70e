"""SQL over the read contract: one module a subject, values always as query parameters. No Streamlit but its cache."""
