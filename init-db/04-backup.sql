-- The role of `context-api backup`: it reads every row of every tenant and may make databases, in which backups are tried.
-- It writes nothing in the service's own one. Row-level security does not apply to it, because a backup with one tenant's
-- rows would be none; so guard its password as the owner's. Whoever backs up by other means needs no password for it, and
-- without one nobody can log in as it over the network. Give it one by
--   PGOPTIONS="-c context.backup_password=…" psql -f 04-backup.sql
--
-- New databases are copies of `template1`: run 02-extensions.sql there as well, because this role may not create pgvector.
do $$
begin
    if not exists (select from pg_roles where rolname = 'context_backup') then
        create role context_backup login nosuperuser bypassrls createdb nocreaterole;
    end if;
    if coalesce(current_setting('context.backup_password', true), '') <> '' then
        execute format('alter role context_backup password %L', current_setting('context.backup_password'));
    end if;
end
$$;

grant pg_read_all_data to context_backup;
-- To search as the service does, when a backup is compared with what it was made of. What it does itself, it does without.
grant context_app to context_backup with inherit false, set true;
