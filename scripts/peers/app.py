"""What somebody writes who wants no more than a search: FastAPI, asyncpg, one route, one key, and the service's own statement.

Reads STATEMENT (a file, `$1` is the vector), SESSION (JSON: settings of a session), DATABASE_URL, CONNECTIONS and KEY.
"""

import json
import os
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Request, Response

STATEMENT = Path(os.environ["STATEMENT"]).read_text()
AUTHORIZATION = f"Bearer {os.environ['KEY']}"


async def know_types(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=orjson.dumps, decoder=orjson.loads, schema="pg_catalog")
    schema = await connection.fetchval("select typnamespace::regnamespace::text from pg_type where oid = 'halfvec'::regtype")
    await connection.set_type_codec("halfvec", encoder=str, decoder=str, schema=schema)


@asynccontextmanager
async def connected(app: FastAPI):
    size = int(os.environ["CONNECTIONS"])
    settings = json.loads(os.environ["SESSION"])
    pool = asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=size, max_size=size, init=know_types, server_settings=settings)
    async with pool as app.state.pool:
        yield


app = FastAPI(lifespan=connected)


@app.post("/search")
async def search(request: Request) -> Response:
    if request.headers.get("authorization") != AUTHORIZATION:
        raise HTTPException(401)
    vector = orjson.loads(await request.body())["vector"]
    rows = await app.state.pool.fetch(STATEMENT, orjson.dumps(vector).decode())
    return Response(orjson.dumps([dict(row) for row in rows], default=str), media_type="application/json")
