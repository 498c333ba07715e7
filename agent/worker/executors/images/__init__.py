"""The images that ship with the product: what the process executor runs where there is no engine.

What may enter: `catalog` (which images there are, pure data), `programs` (what they run, nothing but the standard
library) and `export` (the same images for a real Docker Engine). The programs import as little as they can: fifty of them
run on one machine, and asyncio or http.server alone would cost each of them 10 MB.
"""
