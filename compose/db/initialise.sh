# Runs the files of init-db/ and gives the roles the passwords that the secrets hold. By the database's entrypoint when it
# makes a new database, and by `compose/stack migrate` again, because a release may bring more, and a password may have changed.
# Without a first line and not executable: the entrypoint then reads it into its own shell.
# shellcheck shell=bash
for initial in /init-db/*.sql; do
  psql -Xq -v ON_ERROR_STOP=1 -U postgres -d context -f "$initial" || exit
done
# New databases are copies of it: one in which a backup is tried needs the extension, too.
psql -Xq -v ON_ERROR_STOP=1 -U postgres -d template1 -f /init-db/02-extensions.sql || exit
# From the files, because arguments and variables of processes can be seen.
psql -Xq -v ON_ERROR_STOP=1 -U postgres -d context <<'SQL' || exit
\set owner `cat /run/secrets/db_owner_password`
\set app `cat /run/secrets/db_app_password`
alter role context_owner password :'owner';
alter role context_app password :'app';
\set backup `cat /run/secrets/db_backup_password`
select format('alter role context_backup password %L', :'backup') from pg_roles where rolname = 'context_backup' \gexec
SQL
