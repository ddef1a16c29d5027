"""The inbox in a browser, and as a JSON API. Needs the extra `[web]`, and asyncio.

Reading order: `people` and `access` (who is it, what may they) -> `desk` (what they see, what is recorded) -> `forms`
and `drawing` -> `pages`, `api` and `live` (the same over HTTP) -> `app` (all of it together).
"""
