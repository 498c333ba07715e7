"""The console's screens, drawn with Textual. The only room that may import it.

`app.SwarmApp` is the way in. What is pure is kept apart from what draws: rows and their order (`table_rows`, `columns`,
`filtering`), the log's ring (`log_buffer`, `log_painter`), places (`navigation`), commands (`prompt`) and the registry of
actions (`actions`) know no widget. Modules that need the cluster's rooms (`session`, `log_feed`, `inspection`, `changes`)
are imported after the first paint.
"""
