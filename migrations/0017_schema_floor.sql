-- Which programs this schema is good for: those that know the migration `needs`, and all newer ones. A migration that only adds leaves it as it is,
-- so that programs of the release before may be started anew while, or after, the next one is rolled out. One that takes away what they
-- use sets it to the first migration whose programs do without.
create table schema_floor (
    only_one boolean primary key default true check (only_one),
    needs bigint not null
);
insert into schema_floor (needs) values (15);
grant select on schema_floor to context_app;
