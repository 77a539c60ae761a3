-- Views for people: each row once, in its newest version.
-- do_not_merge_across_partitions_select_final is safe: a partition is a function of the identity.
-- A view keeps the columns it was made with: a migration that adds columns drops and makes its view again.

CREATE VIEW IF NOT EXISTS requests_final AS SELECT * FROM requests FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS request_windows_final AS SELECT * FROM request_windows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS gpu_samples_final AS SELECT * FROM gpu_samples FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS gpu_windows_final AS SELECT * FROM gpu_windows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS scores_final AS SELECT * FROM scores FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS incidents_latest AS
SELECT * FROM incidents
ORDER BY revision DESC
LIMIT 1 BY incident_id;
