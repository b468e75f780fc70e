"""The dashboards of Loopscope: Streamlit pages over the read contract of the store.

`queries/` asks the store, `panels/` turns answers into things to look at (pure), `views/` are the pages. Started by
`loopscope up` through `command`; nothing here writes to the store.
"""
