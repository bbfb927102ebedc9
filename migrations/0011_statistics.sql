-- A plan is made for the sizes that tables are known to have, and kept until they are known to be others: one that is right for
-- an empty table compares all rows of a large one with all of a batch. A server looks once a minute whether a table has grown,
-- the engine in process never does; by then a new service may have taken in a hundred thousand contexts.

-- Looks again at the tables of which most was written since they were looked at; answers their names.
create function analyze_what_has_grown() returns setof text
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
    as $$
    declare
        grown text;
    begin
        for grown in
            select c.relname from pg_catalog.pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relowner = current_user::regrole
              and pg_stat_get_mod_since_analyze(c.oid) > 1000 + 2 * greatest(c.reltuples, 0)
            order by c.relname
        loop
            -- Another process may be at it.
            execute format('analyze (skip_locked) public.%I', grown);
            return next grown;
        end loop;
    end
    $$;
revoke all on function analyze_what_has_grown() from public;
grant execute on function analyze_what_has_grown() to context_app;
