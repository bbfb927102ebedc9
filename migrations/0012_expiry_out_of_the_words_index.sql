-- A sliding expiry moves with reads. As long as an index of `chunks` has it, each move writes all of a chunk's terms into their index
-- again; without, none of the indexes is touched.
drop index chunks_user;
create index chunks_user on chunks (tenant_id, user_id, context_type);
