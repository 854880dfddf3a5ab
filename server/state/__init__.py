"""What survives a restart: accounts, keys, tasks, results, money, images, undelivered replies.

Each module holds plain functions over a SQLAlchemy connection; `database` runs them in transactions,
off the event loop.
"""
