-- Run once by a superuser in the service's database, before `context-api migrate`; may be run again at any time.
-- Plain SQL, so that psql, a container's entrypoint and the service itself can run it alike.
--
-- Two roles, so that a hole in the service is not a hole in the schema:
--   context_owner  owns the tables and runs migrations
--   context_app    reads and writes rows, always under row-level security
-- Without a password nobody can log in as either over the network. Give them one here by
--   PGOPTIONS="-c context.owner_password=… -c context.app_password=…" psql -f 01-roles.sql
-- or later by `alter role`.

do $$
begin
    if not exists (select from pg_roles where rolname = 'context_owner') then
        create role context_owner login nosuperuser nobypassrls nocreatedb nocreaterole;
    end if;
    if not exists (select from pg_roles where rolname = 'context_app') then
        create role context_app login nosuperuser nobypassrls nocreatedb nocreaterole;
    end if;
    if coalesce(current_setting('context.owner_password', true), '') <> '' then
        execute format('alter role context_owner password %L', current_setting('context.owner_password'));
    end if;
    if coalesce(current_setting('context.app_password', true), '') <> '' then
        execute format('alter role context_app password %L', current_setting('context.app_password'));
    end if;
end
$$;

-- Whoever may change the schema may also act as the service; never the other way round.
grant context_app to context_owner;

grant usage, create on schema public to context_owner;
grant usage on schema public to context_app;
