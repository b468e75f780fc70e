"""The pages. Each file is run by Streamlit from top to bottom; logic lives in the other folders."""
