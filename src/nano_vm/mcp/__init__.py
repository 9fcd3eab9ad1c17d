"""MCP both ways: tools of other servers as tools of ours, and programs as tools of a server.

Needs the extra ``mcp``; nothing of the official SDK is imported before it is used.
"""
