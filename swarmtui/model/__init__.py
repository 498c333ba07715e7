"""The live picture of a cluster: tables fed by watch or by polling, and queries whose differences views subscribe to.

What views use: `ClusterModel` (`swarmtui.model.cluster`), the rows (`swarmtui.model.rows`), the queries and `Difference`
(`swarmtui.model.query`), `ClusterSummary` (`swarmtui.model.summary`). None of them imports aiohttp or textual.
"""
