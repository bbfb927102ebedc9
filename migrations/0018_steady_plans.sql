-- A search is planned once for all tenants (docs/adr/0027-plans-that-suit-all-tenants.md). Where one tenant has nearly all rows and ten thousand have few,
-- PostgreSQL would plan as if each had hardly any. So it is told of what searches read that all of it is one tenant's, however many there are.
create function expect_one_tenant(relation regclass) returns void
    language plpgsql set search_path = pg_catalog, public, pg_temp
    as $$
    begin
        execute format('alter table %s alter column tenant_id set (n_distinct = 1)', relation);
    end
    $$;
revoke all on function expect_one_tenant(regclass) from public;

do $$
    declare
        relations regclass[] := array['chunks'::regclass] || array(
            select i.inhrelid::regclass from pg_inherits i where i.inhparent = 'chunk_embeddings'::regclass order by i.inhrelid);
        relation regclass;
    begin
        foreach relation in array relations loop
            perform expect_one_tenant(relation);
        end loop;
        -- It counts from the next look on, which a large table that hardly changes would have in weeks. An empty one is better not looked at:
        -- plans would be made for empty tables.
        foreach relation in array relations loop
            if pg_relation_size(relation) > 0 then
                execute format('analyze %s', relation);
            end if;
        end loop;
    end
    $$;

-- As in 0013, with that.
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
        perform public.expect_one_tenant(('public.chunk_embeddings_' || space)::regclass);
        return space;
    end
    $$;

-- What finds a term of the index, and what finds those that begin so. Quoted as tsquery's input syntax asks.
create function term_itself(term text) returns tsquery
    language sql immutable strict parallel safe
    return ('''' || replace(replace(term, '\', '\\'), '''', '''''') || '''')::tsquery;
create function beginning_with(start text) returns tsquery
    language sql immutable strict parallel safe
    return ('''' || replace(replace(start, '\', '\\'), '''', '''''') || ''':*')::tsquery;
