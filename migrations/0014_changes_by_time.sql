-- When what readers see changes though nobody writes: answers are remembered no longer than that. `contexts_expiring` is there already.
create index contexts_valid_from on contexts (tenant_id, valid_from) where valid_from is not null;
create index contexts_valid_to on contexts (tenant_id, valid_to) where valid_to is not null;
