"""The replicated object store: typed tables with indexes, transactions, object versions, a watch queue.

What may enter: the objects of `agent.api_types` and the log below. One writer: the apply loop of the log. Nothing here
decides anything about the cluster.
"""
