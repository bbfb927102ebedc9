-- Under row-level security PostgreSQL evaluates a condition inside an index only if its function is marked leakproof:
-- if it promises not to tell, by an error or otherwise, about rows that the policy hides. These two have no such path
-- (they answer true or false and raise nothing that depends on the row), but are not marked. Without the mark every
-- full-text search and every containment filter reads all rows of the tenant one by one.
-- A managed PostgreSQL may not let you do this; the service then works, says so at its start, and is slower.
alter function pg_catalog.ts_match_vq(tsvector, tsquery) leakproof;
alter function pg_catalog.jsonb_contains(jsonb, jsonb) leakproof;
