-- A better index of neighbours. How many candidates it weighs when it links a new entry to others (`ef_construction`, 64 where nothing
-- is said) decides whether groups of near-duplicates can be reached at all: no `ef_search` finds what nothing links to.
-- docs/evaluation.md has the figures.
create function create_neighbours_index(partition_name text, value_type text, dims integer) returns void
    language plpgsql set search_path = pg_catalog, public, pg_temp
    as $$
    begin
        -- Embeddings have length one, so the inner product orders as the cosine does, and costs less. From the beginning: only
        -- its owner, which the service is not, could index a table later without stopping writes.
        execute format('create index on public.%I using hnsw ((embedding::%s(%s)) %s_ip_ops) with (ef_construction = 200)',
                       partition_name, value_type, dims, value_type);
    end
    $$;
revoke all on function create_neighbours_index(text, text, integer) from public;

-- As in 0009, with that index.
create or replace function create_embedding_space(new_provider text, new_model text, new_dims integer, new_tokens_max integer,
                                                  is_first boolean) returns integer
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '1s'
    as $$
    declare
        space integer;
        partition_name text;
        value_type text := (select format_type(typbasetype, null) from pg_catalog.pg_type
                            where oid = 'public.embedding_value'::regtype);
    begin
        perform pg_advisory_xact_lock(hashtext('context-api embedding_spaces'));
        if (is_first and exists (select from public.embedding_spaces where status = 'active'))
           or exists (select from public.embedding_spaces s
                      where s.provider = new_provider and s.model = new_model) then
            return null;
        end if;
        -- In the order in which a write takes them: the other way round each would wait for the other.
        lock table public.contexts in share row exclusive mode;
        lock table public.chunks in share row exclusive mode;
        lock table public.past_chunks in share row exclusive mode;
        insert into public.embedding_spaces (provider, model, dims, tokens_max, status, activated_at, is_surveyed, complete_at)
        values (new_provider, new_model, new_dims, new_tokens_max,
                case when is_first then 'active' else 'building' end,
                case when is_first then now() end, is_first, case when is_first then now() end)
        returning id into space;
        partition_name := 'chunk_embeddings_' || space;
        -- Made apart and attached, because that does not keep searches waiting.
        execute format('create table public.%I (like public.chunk_embeddings including defaults including constraints)',
                       partition_name);
        execute format('alter table public.%I add check (space_id = %s), add check (vector_dims(embedding) = %s)',
                       partition_name, space, new_dims);
        -- What does not fit on a page: pgvector does not index it either, search compares all.
        execute format('alter table public.%I alter column embedding set storage %s',
                       partition_name, case when value_type = 'vector' and new_dims > 2000 then 'external' else 'plain' end);
        if not (value_type = 'vector' and new_dims > 2000) then
            perform public.create_neighbours_index(partition_name, value_type, new_dims);
        end if;
        execute format('alter table public.chunk_embeddings attach partition public.%I for values in (%s)',
                       partition_name, space);
        perform public.create_past_partition(space, new_dims);
        return space;
    end
    $$;

-- What comes from now on is linked better in the spaces that are there, too; all of it after a `reindex`.
do $$
    declare
        neighbours regclass;
    begin
        for neighbours in
            select c.oid from pg_class c join pg_am a on a.oid = c.relam
            where a.amname = 'hnsw' and c.relkind = 'i' and c.relnamespace = 'public'::regnamespace
        loop
            execute format('alter index %s set (ef_construction = 200)', neighbours);
        end loop;
    end
    $$;
