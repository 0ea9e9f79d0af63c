"""Runs gooseBit, a hawkBit server, with an empty database: by the Python of an environment that has it.

python goosebit_server.py FOLDER PORT
"""

import asyncio
import os
import sys
from importlib import import_module
from pathlib import Path


async def begin(settings: object) -> None:
    """Its tables, as its makers have them made, and somebody who may do everything."""
    migrations = Path(str(import_module("goosebit.db").__file__)).parent / "migrations"
    command = import_module("aerich").Command(tortoise_config=settings, app="models", location=str(migrations))
    await command.init()
    await command.upgrade(run_in_transaction=True)
    tortoise = import_module("tortoise").Tortoise
    await tortoise.init(config=settings)
    await import_module("goosebit.users").create_user("tester", "tester", ["*"])
    await tortoise.close_connections()


def main(folder: str, port: int) -> None:
    """Serve until it is ended."""
    os.environ["GOOSEBIT_DB_URI"] = f"sqlite://{folder}/db.sqlite3"
    os.environ["GOOSEBIT_ARTIFACTS_DIR"] = f"{folder}/artifacts"
    os.environ["GOOSEBIT_POLL_TIME"] = "00:00:05"
    asyncio.run(begin(import_module("goosebit.db.config").TORTOISE_CONF))
    import_module("uvicorn").run(import_module("goosebit").app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
