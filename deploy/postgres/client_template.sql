-- The template of clients' databases. As a superuser:
--     CREATE DATABASE client_template IS_TEMPLATE true;
-- then, in client_template, this file. Rights on catalogues are each database's own, and are copied
-- with it.

REVOKE ALL ON DATABASE client_template FROM PUBLIC;

-- Who else has a role or a database on the server, and what they do, is not shown to tasks.
DO $$
DECLARE
    each regclass;
BEGIN
    FOR each IN
        SELECT oid::regclass
        FROM pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace
        AND relname IN (
            'pg_auth_members', 'pg_database', 'pg_db_role_setting', 'pg_group', 'pg_locks',
            'pg_prepared_xacts', 'pg_replication_slots', 'pg_roles', 'pg_shdepend',
            'pg_shdescription', 'pg_shseclabel', 'pg_stat_activity', 'pg_stat_database',
            'pg_stat_database_conflicts', 'pg_stat_gssapi', 'pg_stat_replication', 'pg_stat_ssl',
            'pg_stat_subscription', 'pg_user', 'pg_user_mappings'
        )
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', each);
    END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_lock_status() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_prepared_xact() FROM PUBLIC;
