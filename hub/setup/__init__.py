"""What an installation needs before it can start: node, the proxy, the page's assets, the runtime environment.

Every step is quick when repeated, resumes after an interruption, and says how long it will take. Heavy results live in the
cache folder, keyed by their pins, shared by every checkout.
"""
