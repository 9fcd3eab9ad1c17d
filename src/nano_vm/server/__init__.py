"""The server of a team: the pages and an HTTP API over a store, with logins, roles and an audit log.

Rule 1: `access.authorize` stands before every route, and a route that declares no permission keeps
the server from starting. Rule 2: what belongs to a project is read and written through a `Scope`
alone; what is of another is as if it were not there. Rule 3: what changes something writes its
audit entry in the same transaction. Needs the extra ``server``.
"""
