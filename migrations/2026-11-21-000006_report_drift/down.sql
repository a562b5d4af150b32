DROP TABLE drift_objects;
DROP TABLE drift_runs;
