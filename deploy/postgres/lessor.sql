-- Once for each server whose databases tasks get leases of, as a superuser, in the database postgres,
-- after CREATE ROLE gateway_lessor LOGIN PASSWORD '…'. Running it again changes nothing.
-- GATEWAY_LEASES_POSTGRES_URL names this account and the database postgres.

-- It makes the clients' roles and databases, and may do nothing with anybody else's.
ALTER ROLE gateway_lessor CREATEROLE CREATEDB;

-- A lease's role is to come into its client's database and no other. Whatever databases there are
-- besides must be closed in the same way.
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO gateway_lessor;
