-- Reads the table, and keeps nobody from writing it.
ALTER TABLE upload_intents VALIDATE CONSTRAINT upload_intents_method_check;
