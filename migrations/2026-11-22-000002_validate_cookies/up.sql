-- Reads the table, and keeps nobody from writing it.
ALTER TABLE access_events VALIDATE CONSTRAINT access_events_kind_check;
ALTER TABLE access_events VALIDATE CONSTRAINT access_events_cookies_check;
