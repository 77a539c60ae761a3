-- Rights for the two users of the database, to be run once by an administrator after `tidegauge migrate`
-- (migrations create no users). Replace `tidegauge` where the database has another name. Then, with passwords of your own:
--
--   CREATE USER tidegauge_writer IDENTIFIED WITH sha256_password BY '...' DEFAULT ROLE tidegauge_writer;
--   CREATE USER grafana_reader IDENTIFIED WITH sha256_password BY '...' DEFAULT ROLE tidegauge_reader
--       SETTINGS PROFILE tidegauge_reader;
--
-- `tidegauge migrate` needs a user with more rights (CREATE, ALTER); the running program needs none of them, if
-- migrations are run by hand.

CREATE ROLE IF NOT EXISTS tidegauge_writer;
GRANT SELECT, INSERT ON tidegauge.* TO tidegauge_writer;

-- Not ALTER TABLE as a whole: that would be the right to delete rows and to drop columns and partitions.
CREATE ROLE IF NOT EXISTS tidegauge_migrator;
GRANT SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP VIEW, ALTER ADD COLUMN, ALTER MODIFY COLUMN, ALTER ADD INDEX, ALTER MODIFY TTL ON tidegauge.* TO tidegauge_migrator;
GRANT TABLE ENGINE ON ReplacingMergeTree TO tidegauge_migrator;

CREATE ROLE IF NOT EXISTS tidegauge_reader;
GRANT SELECT ON tidegauge.* TO tidegauge_reader;

-- Grafana sends max_execution_time with every query. Under plain readonly = 1 that is refused: its connection test
-- passes and every panel fails.
CREATE SETTINGS PROFILE IF NOT EXISTS tidegauge_reader
    SETTINGS readonly = 1,
             max_execution_time = 60 MIN 1 MAX 120 CHANGEABLE_IN_READONLY,
             max_memory_usage = 4000000000,
             max_result_rows = 1000000;
