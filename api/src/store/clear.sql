-- Drops what `context_owner` owns in this database, and with it what depends on that. Not `drop owned`: that would also take
-- the role's rights away, those on other databases of the server included. What an extension or a constraint brings goes with it.
do $$
declare
    command text;
    leftover text;
begin
    -- All are named before the first goes: each takes others along.
    for command in
        select unnest(array(
            select format('drop %s if exists %I.%I cascade',
                          case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
                                         when 'f' then 'foreign table' when 'c' then 'type' else 'table' end,
                          n.nspname, c.relname)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relowner = 'context_owner'::regrole and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
              and n.nspname !~ '^pg_'
              -- That of a column goes with its table, and not without it.
              and not (c.relkind = 'S' and exists (select from pg_depend d
                                                   where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                                     and d.deptype in ('a', 'i')))
            union all
            select format('drop routine if exists %I.%I(%s) cascade', n.nspname, p.proname,
                          pg_get_function_identity_arguments(p.oid))
            from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where p.proowner = 'context_owner'::regrole and n.nspname !~ '^pg_'
            union all
            select format('drop %s if exists %I.%I cascade', case t.typtype when 'd' then 'domain' else 'type' end,
                          n.nspname, t.typname)
            from pg_type t join pg_namespace n on n.oid = t.typnamespace
            where t.typowner = 'context_owner'::regrole and t.typtype in ('d', 'e', 'r') and n.nspname !~ '^pg_'
            union all
            select format('drop schema if exists %I cascade', n.nspname)
            from pg_namespace n
            where n.nspowner = 'context_owner'::regrole and n.nspname <> 'public' and n.nspname !~ '^pg_'))
    loop
        execute command;
    end loop;
    -- The temporary table of this very session is its, too.
    select string_agg(pg_describe_object(d.classid, d.objid, 0), ', ') into leftover
    from pg_shdepend d
    where d.dbid = (select oid from pg_database where datname = current_database())
      and d.refclassid = 'pg_authid'::regclass and d.refobjid = 'context_owner'::regrole and d.deptype = 'o'
      and not (d.classid = 'pg_class'::regclass
               and d.objid in (select oid from pg_class where relpersistence = 't'))
      and not (d.classid = 'pg_namespace'::regclass and d.objid = 'public'::regnamespace);
    if leftover is not null then
        raise exception 'not everything of context_owner can be removed: %', leftover
            using hint = 'Drop it, or restore into an empty database.';
    end if;
end
$$;
