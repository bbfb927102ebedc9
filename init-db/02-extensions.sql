-- pgvector is not a trusted extension: only a superuser can create it. Run this file in `template1` as well if every
-- new database of this server shall have it.
create extension if not exists vector;
